"""CutPaste: the network and its head, the loss of a training step and its gradient.

Undone in their code: the last layer of their head has a bias and neither batch norm nor ReLU, and there are eight
others; ours has nine, each with both, as the numbers of parameters in UniAD's Table A7 do. Their score is a kernel
density of what the head makes, ours the distance to a Gaussian of what goes into it, so scores are not compared.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from public.common import Compared, copy_weights, detector, gradient, import_from, randomize_batch_norms
from torch import nn


def compare(clone: Path) -> Compared:
    import_from(clone)
    from model import CutPasteNet  # the clone's own module

    ours = detector(
        "model=cutpaste", "backbone=resnet18", "backbone.levels=[4]", "backbone.weights=random", "data.image_size=64",
        "model.grid=[2,2]",
    )  # fmt: skip
    theirs = CutPasteNet(pretrained=False, dims=[512] * 9 + [128])
    theirs.head[-1].bias = None
    theirs.head.extend([nn.BatchNorm1d(128), nn.ReLU()])
    randomize_batch_norms(theirs)
    copy_weights(theirs.encoder, ours.backbone.model)
    copy_weights(nn.ModuleList([theirs.head, theirs.out]), ours.head)

    good, pasted = torch.randn(4, 3, 64, 64), torch.randn(4, 2, 3, 64, 64)
    batch = {"image": good, "damaged": pasted}
    kinds = [good, pasted[:, 0], pasted[:, 1]]
    with torch.no_grad():
        logits = theirs.eval()(torch.cat(kinds))[0].unflatten(0, (3, -1)).transpose(0, 1).flatten(0, 1)
        yield "logits", ours.classified(batch)[0], logits
    theirs.train().double()  # in float32 the many batch norms of few images show in gradients
    batch = {name: images.double() for name, images in batch.items()}
    loss = F.cross_entropy(theirs(torch.cat(kinds).double())[0].float(), torch.arange(3).repeat_interleave(len(good)))
    found = ours.train().double().training_step(batch, 0)
    yield "loss", found, loss
    weights = [*theirs.encoder.parameters(), *theirs.head.parameters(), *theirs.out.parameters()]
    yield "gradient of the loss by the weights", gradient(found, [*ours.parameters()]), gradient(loss, weights)
