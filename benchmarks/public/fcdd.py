"""FCDD: the network cut from VGG-11, the image score, the map; the loss of a training step and its gradient.

Undone in their code: batch norms of the frozen layers take the statistics of each batch in their training. Their
Gaussian repeats its middle value where its side is even and is not normalised; ours is sampled around the middle and
keeps the mean of a map, and is put in the place of theirs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from public.common import Compared, copy_weights, detector, gradient, import_from, package, randomize_batch_norms
from scipy import signal
from torch import Tensor

from uniad_lightning.detectors.fcdd import FCDD

FROZEN = 15  # layers of their network, as in `conf/model/fcdd.yaml`


def their_modules(clone: Path) -> tuple[type, type]:
    """Their network without pretrained weights, and their trainer."""
    source = clone / "python" / "fcdd"
    import_from(source.parent)
    if not hasattr(signal, "gaussian"):
        signal.gaussian = signal.windows.gaussian  # where SciPy has it now
    package("kornia", gaussian_blur2d=None)
    package("skimage")
    package("skimage.transform", rotate=None)
    package("fcdd.datasets", source / "datasets")
    package("fcdd.datasets.bases", GTMapADDataset=None)
    package("fcdd.util", source / "util")
    package("fcdd.util.logging", colorize=None, Logger=None)
    package("fcdd.models", source / "models")
    from fcdd.models.fcdd_cnn_224 import FCDD_CNN224_VGG_NOPT  # the clone's own modules
    from fcdd.training.fcdd import FCDDTrainer

    return FCDD_CNN224_VGG_NOPT, FCDDTrainer


def even_gaussian(side: int, sigma: float) -> np.ndarray:
    """A Gaussian (side, side) of a mean of 1 for each cell of 8x8 pixels, sampled around its middle."""
    line = signal.windows.gaussian(side, sigma)
    line = 8 * line / line.sum()
    return np.outer(line, line)


def compare(clone: Path) -> Compared:
    network_class, trainer_class = their_modules(clone)
    vgg = "backbone.name=vgg11_bn.tv_in1k"
    ours = detector("model=fcdd", "backbone=timm", vgg, "backbone.levels=[3]", "backbone.weights=random")
    theirs = network_class((3, 224, 224), bias=True)
    randomize_batch_norms(theirs)
    theirs.conv_final.weight.data.mul_(10)  # else A is so small that theirs rounds it
    copy_weights(theirs.features, ours.backbone.model)
    copy_weights(theirs.conv_final, ours.head)
    trainer = trainer_class(theirs, None, None, (None, None), None, "fcdd", ours.sigma, 0.97, 64, device="cpu")
    image, labels = torch.randn(4, 3, 224, 224), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        yield from inspected(ours, trainer, image)
    yield from trained(ours, trainer, image, labels)


def inspected(ours: FCDD, trainer: Any, image: Tensor) -> Compared:
    import fcdd.models.bases as receptive_field

    theirs = trainer.net.eval()
    loss = trainer.loss(theirs(image), image, torch.zeros(len(image), dtype=torch.long), reduce="none")
    deviation = trainer.anomaly_score(loss)
    yield "A", ours.deviation(ours.backbone(image)), deviation[:, 0]
    maps = ours.anomaly_map({"image": image})
    yield "image score", ours.image_scores({"image": image}, maps), trainer.reduce_ascore(deviation)
    receptive_field.gkern = even_gaussian
    spread = theirs.receptive_upsample(trainer.reduce_pixelwise_ascore(deviation), std=trainer.gauss_std)
    yield "map", maps, spread[:, 0]


def trained(ours: FCDD, trainer: Any, image: Tensor, labels: Tensor) -> Compared:
    # In float32 a few activations near 0 differ in sign, which gradients show; in float64 none does.
    theirs, image = trainer.net.train(), image.double()
    theirs.features.double()[:FROZEN].eval()
    ours.train().backbone.model.double()
    loss = trainer.loss(theirs.conv_final(theirs.features(image).float()), image, labels)
    damage = labels.bool()[:, None, None, None].expand(-1, 1, 224, 224)
    found = ours.training_step({"damaged": image[:, None], "damage": damage}, 0)
    yield "loss", found, loss
    own = [parameter for parameter in ours.parameters() if parameter.requires_grad]
    learned = [*theirs.features[FROZEN:].parameters(), *theirs.conv_final.parameters()]
    yield "gradient of the loss by the weights", gradient(found, own), gradient(loss, learned)
