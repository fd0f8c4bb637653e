"""DRAEM: both networks, the map and the image score; the three losses of a training step and their gradient; the noise.

Undone: the smoothing of probabilities by 2e-5 in their focal loss, where ours keeps them 1e-5 from 0 and 1; the loss is
compared with it, too. Their SSIM takes a range of 2 in place of 1 once a reconstruction falls below -0.5, which
ours never does; the last layer is scaled here, so that none does.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from public.common import (
    Compared,
    copy_weights,
    detector,
    gradient,
    import_from,
    randomize_batch_norms,
    stay_on_the_cpu,
)
from torch import Tensor, nn

from uniad_lightning.data.defects.perlin import perlin_noise
from uniad_lightning.detectors.draem import DRAEM

Networks = tuple[nn.Module, nn.Module]  # reconstructive and discriminative


def copy_networks(theirs: Networks, ours: DRAEM) -> None:
    """Stage by stage: ours lists the enlarging stages of a decoder before the others, theirs in turn."""
    reconstructive, discriminative = theirs
    encoders = (reconstructive.encoder, discriminative.encoder_segment)
    decoders = (reconstructive.decoder, discriminative.decoder_segment)
    for encoder, decoder, own in zip(encoders, decoders, (ours.reconstruct, ours.discriminate), strict=True):
        for number, stage in enumerate(own.encoder, 1):
            copy_weights(getattr(encoder, f"block{number}"), stage)
        suffixes = ["_b", "1", "2", "3", "4"][-len(own.up) :]
        for suffix, up, stage in zip(suffixes, own.up, own.decoder, strict=True):
            copy_weights(getattr(decoder, f"up{suffix}"), up)
            copy_weights(getattr(decoder, f"db{suffix}"), stage)
        copy_weights(decoder.fin_out, own.last)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Good images, the same with a defect, and the masks (B, H, W) bool."""
    good, mask = torch.rand(2, 3, 128, 128), torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[0, 20:60, 40:90] = True
    return good, torch.where(mask[:, None], torch.rand_like(good), good), mask


def tame(last: nn.Conv2d) -> None:
    """Have the reconstruction of random weights lie near the middle of [0, 1]."""
    last.weight.data.mul_(0.1)
    last.bias.data.fill_(0.5)


def compare(clone: Path) -> Compared:
    import_from(clone)
    stay_on_the_cpu()
    from model_unet import DiscriminativeSubNetwork, ReconstructiveSubNetwork  # the clone's own module

    ours = detector("model=draem", "data.image_size=128")
    networks = ReconstructiveSubNetwork(3, 3), DiscriminativeSubNetwork(6, 2)
    for network in networks:
        randomize_batch_norms(network)
    tame(networks[0].decoder.fin_out[0])
    copy_networks(networks, ours)
    good, damaged, mask = inputs()
    with torch.no_grad():
        yield from inspected(ours, networks, damaged)
    yield from trained(ours, networks, good, damaged, mask)
    yield from drawn()


def inspected(ours: DRAEM, networks: Networks, image: Tensor) -> Compared:
    reconstruction = networks[0].eval()(image)
    yield "reconstruction", ours(image)[0], reconstruction
    theirs = networks[1].eval()(torch.cat([reconstruction, image], dim=1)).softmax(dim=1)[:, 1:]
    maps = ours.anomaly_map({"image": image})
    yield "map", maps, theirs[:, 0]
    scores = F.avg_pool2d(theirs, 21, stride=1, padding=21 // 2).amax(dim=(1, 2, 3))
    yield "image score", ours.image_scores({}, maps), scores


def trained(ours: DRAEM, networks: Networks, good: Tensor, damaged: Tensor, mask: Tensor) -> Compared:
    from loss import SSIM, FocalLoss  # the clone's own module

    images = damaged.clone().requires_grad_()
    reconstruction = networks[0].train()(images)
    marked = networks[1].train()(torch.cat([reconstruction, images], dim=1)).softmax(dim=1)
    focal, smoothed = (FocalLoss(smooth=smooth)(marked, mask[:, None].float()) for smooth in (0, 1e-5))
    loss = F.mse_loss(reconstruction, good) + SSIM()(reconstruction, good) + focal
    own_images = damaged.clone().requires_grad_()
    batch = {"image": good, "damaged": own_images[:, None], "damage": mask[:, None]}
    found = ours.train().training_step(batch, 0)
    yield "loss", found, loss
    yield "loss with their smoothing", found, loss - focal + smoothed
    yield "gradient of the loss by the image", gradient(found, [own_images]), gradient(loss, [images])


def drawn() -> Compared:
    from perlin import rand_perlin_2d_np  # the clone's own module

    for cells in ((1, 1), (4, 2), (8, 32)):
        np.random.seed(0)
        theirs = rand_perlin_2d_np((128, 128), cells)
        own = perlin_noise((128, 128), cells, np.random.RandomState(0))
        yield f"noise of {cells[0]}x{cells[1]} cells", torch.from_numpy(own), torch.from_numpy(theirs)
