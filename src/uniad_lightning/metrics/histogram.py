"""Counts of scores in the order of their float32 bits, and the metrics computed from such counts.

Reinterpreting a float32 as an integer (and mirroring the negative ones) keeps its order, so the top bits of that key
are a bin and no range of scores has to be known beforehand: 18 of them (sign, exponent, 9 of 23 mantissa bits) are the
first level, bins about 0.2 % wide at any magnitude. `refinement` divides those that leave a number uncertain.

Letters: K bins or thresholds; n images of one size (H, W); (h, w) the detector's own grid.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from uniad_lightning.files.mask_bits import decompress_mask
from uniad_lightning.scoring import upsample
from uniad_lightning.types import Size

LOW_BITS = 14
BINS = 1 << (32 - LOW_BITS)
PIXELS_AT_ONCE = 1 << 20  # bounds the working memory of a count, some 40 bytes a pixel
UNDEFINED = float("nan")
LIMIT = 0.3  # of the false-positive rate, up to which AUPRO integrates

CONNECTED = np.ones((3, 3), dtype=bool)  # corners join as well


def sort_keys(scores: Tensor) -> Tensor:
    """Integers (int32, same shape) in the order of the finite float32 `scores`; -0 and +0 share one."""
    bits = (scores + 0.0).view(torch.int32)  # adding +0 turns -0 into +0
    return (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)


def first_level(keys: Tensor) -> Tensor:
    """First-level bin (int64, 0..BINS-1) of each key."""
    return (keys >> LOW_BITS).add_(BINS // 2).long()


class Counts(NamedTuple):
    """Pixels in each bin; bins (last axis) ascend with the score unless `descending` made them."""

    positives: Tensor  # (..., K) int64, defective pixels
    negatives: Tensor  # (..., K) int64, good pixels
    regions: Tensor  # (..., K) float64, defective pixels, each weighing 1 / area of its region

    def add(self, bins: Tensor, masks: Tensor, weights: Tensor) -> None:
        """Counts n images in place; for counts that are flat.

        `bins` (n, H, W) int64 on the device of the counts; on the CPU, `masks` (n, H, W) bool, True = defective, and
        `weights` float64, one for each defective pixel in row-major order.
        """
        # On a CPU scatter_add_ takes two thirds of the time of bincount and of index_add_, NumPy's flatnonzero a
        # seventh of torch's nonzero. Few pixels are defective: all count as good at first, and those are taken back.
        bins = bins.flatten()
        places = torch.from_numpy(np.flatnonzero(masks.numpy())).to(bins.device)
        defective = bins.index_select(0, places)
        ones = torch.ones_like(bins)
        self.negatives.scatter_add_(0, bins, ones)
        self.negatives.scatter_add_(0, defective, -ones[: len(defective)])
        self.positives.scatter_add_(0, defective, ones[: len(defective)])
        self.regions.scatter_add_(0, defective, weights.to(bins.device))

    def descending(self) -> "Counts":
        """The same counts on the CPU, highest score first, without empty bins."""
        used = (self.positives + self.negatives).nonzero()[:, 0].flip(0)
        return Counts(*(count.index_select(0, used).cpu() for count in self))


class ScoredImage(NamedTuple):
    """What is kept of an image to count it again."""

    map: Tensor  # (h, w) float32 on the CPU, before upsampling
    mask: bytes  # (H, W) bool, by `compress_mask`; empty = unknown, no part in the pixel metrics
    size: Size  # (H, W)
    category: int
    place: int  # in the split


def region_weights(masks: np.ndarray) -> np.ndarray:
    """1 / area of its 8-connected region, float64, for each True pixel of `masks` (n, H, W) in row-major order."""
    return np.concatenate([np.empty(0), *map(_region_weights, masks)])


def _region_weights(mask: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(mask)
    if not len(places):
        return np.empty(0)
    first, last = places[[0, -1]] // mask.shape[1]
    box = mask[first : last + 1]  # labelling visits every pixel, so only the rows and columns that hold any are given
    columns = np.flatnonzero(box.any(0))
    box = box[:, columns[0] : columns[-1] + 1]
    labels, _ = ndimage.label(box, structure=CONNECTED)
    inside = labels[box]
    areas: np.ndarray = np.bincount(inside)[inside]
    return 1.0 / areas


def count_images(
    images: Iterable[ScoredImage],
    into: Counts,
    place: Callable[[Tensor, Tensor], Tensor],
    valid: Tensor | None = None,
) -> None:
    """Upsamples the maps of those `images` that have a mask and adds all their pixels to the flat counts `into`.

    With `valid` (H, W) bool only those pixels count; no other may be defective. `place` gives the bins (n, H, W) for
    keys (n, H, W) and category ids (n, 1, 1); all on the device of `into`.
    """
    device = into.positives.device
    known = (image for image in images if image.mask)
    for (_, size), same in groupby(known, key=lambda image: (image.map.shape, image.size)):
        alike: Sequence[ScoredImage] = list(same)
        step = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
        for start in range(0, len(alike), step):
            part = alike[start : start + step]
            keys = sort_keys(upsample(torch.stack([image.map for image in part]).to(device), size))  # (n, H, W)
            categories = torch.tensor([image.category for image in part], device=device)[:, None, None]
            masks = np.stack([decompress_mask(image.mask, image.size) for image in part])  # (n, H, W)
            bins, weights = place(keys, categories), torch.from_numpy(region_weights(masks))
            defective = torch.from_numpy(masks)
            if valid is not None:
                bins, defective = bins[:, valid.to(device)], defective[:, valid]  # (n, V), V valid pixels
            into.add(bins, defective, weights)


def by_score(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(positives, negatives), int64 (K,), at each of the K distinct `scores` in descending order; `labels` are 0/1."""
    values, place = scores.unique(return_inverse=True)
    everything = torch.bincount(place, minlength=len(values))
    positives = torch.zeros_like(everything).index_add_(0, place, labels)
    return positives.flip(0), (everything - positives).flip(0)


def ranking(positives: Tensor, negatives: Tensor) -> tuple[float, float, float]:
    """(AUROC, average precision, F1-max) from counts (K,) at descending thresholds, none empty.

    AUROC counts ties half and is never flipped; average precision sums precision over the steps of recall and F1-max
    runs over all thresholds, both as in scikit-learn. NaN if a class is missing.
    """
    total, others = int(positives.sum()), int(negatives.sum())
    if not total or not others:
        return UNDEFINED, UNDEFINED, UNDEFINED
    hits, alarms = positives.cumsum(0).double(), negatives.cumsum(0).double()
    auroc = (negatives * (hits - positives / 2)).sum() / total / others
    average = (positives * (hits / (hits + alarms))).sum() / total
    f1 = 2 * hits / (hits + alarms + total)
    return float(auroc), float(average), float(f1.max())


def region_overlap(regions: Tensor, negatives: Tensor, *, limit: float = LIMIT) -> float:
    """AUPRO from counts (K,) at descending thresholds, none empty.

    The covered share of a region, mean over regions, against the false-positive rate over all good pixels; linear
    between thresholds, from (0, 0), cut by interpolation at `limit`; the area is divided by `limit` (Bergmann et al.,
    The MVTec Anomaly Detection Dataset, IJCV 2021; PyPI `adeval`). NaN without regions or without good pixels.
    """
    rate, share = negatives.cumsum(0).double(), regions.cumsum(0)
    if not len(rate) or not rate[-1] or not share[-1]:
        return UNDEFINED
    rate, share = (torch.cat([curve.new_zeros(1), curve / curve[-1]]) for curve in (rate, share))
    beyond = int(torch.searchsorted(rate, limit))  # the first point that reaches the limit
    rate, share = rate[: beyond + 1], share[: beyond + 1].clone()
    share[-1] = torch.lerp(share[-2], share[-1], (limit - rate[-2]) / (rate[-1] - rate[-2]))
    return float(torch.trapezoid(share, rate.clamp(max=limit))) / limit
