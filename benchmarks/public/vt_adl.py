"""VT-ADL: transformer, capsules, decoder and mixture; the three losses of a training step; the map and the image score.

Without the noise of a training, which is drawn. Undone in their code: it averages the log-likelihoods of the Gaussians,
each with its weight, and counts log 2 pi once for all numbers of a token; here the likelihood of the mixture is made of
their weights and log-likelihoods, with log 2 pi for each number. Their image score in `test.py` adds the losses of the
reconstruction; what is compared is the map's maximum.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from public.common import Compared, copy_weights, detector, import_from, package, randomize_batch_norms, stay_on_the_cpu
from torch import Tensor, nn

from uniad_lightning.detectors.vt_adl import VTADL


def copy_networks(theirs: nn.Module, mixture: nn.Module, ours: VTADL) -> None:
    """Their patches list the channels of each pixel, ours the pixels of each channel; their Gaussians come last."""
    transformer, side = theirs.vt, ours.patch_size
    own = ours.transformer
    with torch.no_grad():
        own.embed.weight.copy_(transformer.patch_to_embedding.weight.unflatten(1, (side * side, 3)).mT.flatten(1))
        own.embed.bias.copy_(transformer.patch_to_embedding.bias)
        own.class_token.copy_(transformer.cls_token[0, 0])
        own.position.copy_(transformer.pos_embedding[0])
        ours.capsules.weight.copy_(theirs.Digcap.W[0])
    for (attention, feed), block in zip(transformer.transformer.layers, own.blocks, strict=True):
        copy_weights(attention.fn.norm, block.first)
        copy_weights(attention.fn.fn.to_qkv, block.query_key_value)
        copy_weights(attention.fn.fn.to_out, nn.ModuleList([block.out]))
        copy_weights(feed.fn.norm, block.second)
        copy_weights(feed.fn.fn, nn.ModuleList([block.feed]))
    copy_weights(theirs.decoder, ours.decoder)
    copy_weights(mixture.pi, ours.density.weights)
    for source, target in ((mixture.mu, ours.density.means), (mixture.sigma_sq, ours.density.spreads)):
        by_gaussian = source.weight.unflatten(0, (-1, ours.density.count)).transpose(0, 1).flatten(0, 1)
        target.weight.data.copy_(by_gaussian)


def likelihoods(modules: Any, tokens: Tensor, mixture: nn.Module) -> Tensor:
    """Negative log-likelihoods (B, T) under the mixture, of their weights and log-likelihoods of each Gaussian."""
    weights, means, log_variances = mixture(tokens)
    each = modules.mdn1.log_gaussian(tokens, means, log_variances)  # (B, T, K)
    each = each - 0.5 * (tokens.shape[2] - 1) * math.log(2 * math.pi)
    return -(weights.log() + each).logsumexp(dim=2)


def compare(clone: Path) -> Compared:
    import_from(clone)
    stay_on_the_cpu()
    package("cv2")
    package("skimage")
    package("skimage.measure", label=None)
    import mdn1  # these five: the clone's own modules
    import pytorch_ssim
    import utility_fun
    from VT_AE import VT_AE, initialize_weights

    modules = SimpleNamespace(mdn1=mdn1, ssim=pytorch_ssim.SSIM(), smooth=utility_fun.Filter)
    ours = detector("model=vt_adl", "data.image_size=512", "model.noise=0")
    theirs, mixture = VT_AE(train=False), mdn1.MDN()
    initialize_weights(theirs.vt, theirs.decoder)
    randomize_batch_norms(theirs)
    copy_networks(theirs, mixture, ours)
    image = torch.rand(2, 3, 512, 512)
    with torch.no_grad():
        yield from inspected(ours, theirs.eval(), mixture, modules, image)
    yield from trained(ours, theirs.train(), mixture, modules, image)


def inspected(ours: VTADL, theirs: nn.Module, mixture: nn.Module, modules: Any, image: Tensor) -> Compared:
    tokens, decoded = theirs(image)
    own = ours.encode(image)
    yield "tokens", own, tokens
    yield "decoded image", ours.decoder(ours.capsules(own)), decoded
    cells = likelihoods(modules, tokens, mixture)
    yield "negative log-likelihoods", ours.density(own), cells
    large = nn.UpsamplingBilinear2d((512, 512))(cells.view(-1, 1, 8, 8))
    theirs_maps = torch.stack([torch.from_numpy(modules.smooth(one[None].numpy())) for one in large])[:, 0, 0]
    maps = ours.anomaly_map({"image": image})
    yield "map", maps, theirs_maps
    yield "image score", ours.image_scores({}, maps), theirs_maps.amax(dim=(1, 2))


def trained(ours: VTADL, theirs: nn.Module, mixture: nn.Module, modules: Any, image: Tensor) -> Compared:
    tokens, decoded = theirs(image)
    likelihood = likelihoods(modules, tokens, mixture).sum(dim=1).mean()
    mse, similarity = nn.functional.mse_loss(decoded, image), modules.ssim(image, decoded)
    found, parts = ours.train().losses(image)
    yield "loss", found, 5 * mse - 0.5 * similarity + likelihood
    for name, value in (("mse", mse), ("ssim", similarity), ("nll", likelihood)):
        yield f"loss: {name}", parts[name], value
