"""anomalib's DRAEM and PaDiM: networks, losses, the fit, maps; the image score of PaDiM.

Undone in their code, for DRAEM: the image comes before its reconstruction in the second network, which is a permutation
of weights; SSIM repeats the image beyond its edges, so that it is compared without the edges; and the focal loss has an
`alpha` of 1, by which kornia (0.8.2 and 0.9.0, not 0.6.12) weights the pixels of class 0, the good ones, with 0. Their
image score is the map's maximum, without an average over 21x21 pixels, and is not compared. For PaDiM: 1e-5 is added to
covariances once more, which ours gets as a setting, and the smoothing mirrors a map at the middle of its outer pixels,
where ours (as SciPy) does so at their edge.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from public.common import Compared, copy_weights, detector, import_from, package, randomize_batch_norms
from public.draem import copy_networks, inputs, tame
from torch import Tensor, nn

from uniad_lightning.detectors.draem import focal_loss
from uniad_lightning.models.structural_similarity import ssim

RIM = 5  # pixels that half a window of SSIM covers


def their_classes(clone: Path) -> tuple[type, type, type]:
    """DraemModel, DraemLoss and PadimModel, imported without the rest of anomalib and what that needs."""
    source = clone / "src" / "anomalib"
    import_from(source.parent)
    components = source / "models" / "components"
    package("anomalib", source)
    package("anomalib.data", InferenceBatch=SimpleNamespace)
    package("anomalib.models", source / "models")
    package("anomalib.models.image", source / "models" / "image")
    package("anomalib.models.components", components)
    package("anomalib.models.components.base", components / "base")
    from anomalib.models.components.base.dynamic_buffer import DynamicBufferMixin  # the clone's own modules

    package("anomalib.models.components.base", components / "base", DynamicBufferMixin=DynamicBufferMixin)
    package("anomalib.models.components.stats", components / "stats")
    from anomalib.models.components.feature_extractors import TimmFeatureExtractor
    from anomalib.models.components.filters import GaussianBlur2d
    from anomalib.models.components.stats.multi_variate_gaussian import MultiVariateGaussian

    parts = {part.__name__: part for part in (TimmFeatureExtractor, GaussianBlur2d, MultiVariateGaussian)}
    package("anomalib.models.components", components, **parts)
    for name in ("draem", "padim"):
        package(f"anomalib.models.image.{name}", source / "models" / "image" / name)
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel
    from anomalib.models.image.padim.torch_model import PadimModel

    return DraemModel, DraemLoss, PadimModel


def compare(clone: Path) -> Compared:
    draem, draem_loss, padim = their_classes(clone)
    yield from compare_draem(draem(), draem_loss())
    with torch.no_grad():
        yield from compare_padim(padim("resnet18", pre_trained=False))


def compare_draem(theirs: nn.Module, criterion: nn.Module) -> Compared:
    ours = detector("model=draem", "data.image_size=128")
    randomize_batch_norms(theirs)
    tame(theirs.reconstructive_subnetwork.decoder.fin_out[0])
    copy_networks((theirs.reconstructive_subnetwork, theirs.discriminative_subnetwork), ours)
    first = ours.discriminate.encoder[0][0].weight.data
    first.copy_(first.roll(3, dims=1))
    good, damaged, mask = inputs()
    with torch.no_grad():
        yield "DRAEM: map", ours.anomaly_map({"image": damaged}), theirs.eval()(damaged).anomaly_map
        reconstruction, prediction = theirs.train()(damaged)
        painted, scores = ours.train()(damaged)
        yield "DRAEM: reconstruction in training", painted, reconstruction
        yield "DRAEM: L2", F.mse_loss(painted, good), criterion.l2_loss(reconstruction, good)
        criterion.ssim_loss.padding = "valid"
        similarity = ssim(painted, good)[..., RIM:-RIM, RIM:-RIM].mean()
        yield "DRAEM: 1 - SSIM", 1 - similarity, 2 * criterion.ssim_loss(reconstruction, good)
        criterion.focal_loss.alpha, criterion.focal_loss.reduction = None, "sum"
        focal = criterion.focal_loss(prediction, mask.long()) / mask.numel()
        yield "DRAEM: focal loss", focal_loss(scores, mask, ours.focal_gamma), focal


def mirrored_at_edges(blur: nn.Module, maps: Tensor) -> Tensor:
    """Their smoothing of maps (B, 1, H, W), mirrored as ours is."""
    blur.padding = "valid"
    reach = blur.height // 2
    widths = ((0, 0), (0, 0), (reach, reach), (reach, reach))
    return blur(torch.from_numpy(np.pad(maps.numpy(), widths, mode="symmetric")))


def compare_padim(theirs: nn.Module) -> Compared:
    ours = detector(
        "model=padim", "model.dim=100", "backbone=resnet18", "backbone.levels=[1,2,3]", "backbone.weights=random",
        "model.regularization=0.01001",
    )  # fmt: skip
    randomize_batch_norms(theirs)
    copy_weights(theirs.feature_extractor.feature_extractor, ours.backbone.model)
    theirs.idx = ours.gaussians.channels
    generator = theirs.anomaly_map_generator
    generator.smooth_anomaly_map = lambda maps: mirrored_at_edges(generator.blur, maps)
    theirs.train()
    for images in torch.randn(40, 3, 224, 224).split(8):
        ours.gaussians.update(ours.features({"image": images}))
        theirs(images)
    theirs.fit()
    ours.gaussians.finish()
    yield "PaDiM: means", ours.gaussians.mean, theirs.gaussian.mean.T
    images = torch.randn(4, 3, 224, 224)
    maps, found = ours.anomaly_map({"image": images}), theirs.eval()(images)
    yield "PaDiM: map", maps, found.anomaly_map[:, 0]
    yield "PaDiM: image score", ours.image_scores({}, maps), found.pred_score[:, 0]
