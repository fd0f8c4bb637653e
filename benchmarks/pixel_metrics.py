"""Pixel metrics of a whole test split: ours, streamed in batches, against what sorts or thresholds every pixel.

Ours gives AUROC, AP, F1-max and AUPRO of every category and of the pool at once, from 14x14 maps that it upsamples; it
has no way to give one of them alone. The opponents give what their row says, for one category at a time, from maps
upsampled before the clock starts; their time of one category is scaled to all.
"""

import subprocess
import sys
import threading
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from adeval.au_pro import calculate_au_pro
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from timing import Row, compare, in_turn, prove_equal
from torchmetrics.classification import BinaryAUROC

from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Evaluation
from uniad_lightning.scoring import upsample

CATEGORIES, IMAGES, BATCH = 15, 115, 32  # MVTec-AD: 1725 test images
MEGABYTES = 300
Scenes = dict[str, torch.Tensor]


def scenes(images: int, seed: int, side: int = 224, grid: int = 14) -> Scenes:
    """Maps (n, grid, grid), higher where the mask (n, side, side), a rectangle in every second image, is set."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(images, side, side, dtype=torch.bool)
    for i in range(0, images, 2):
        top, left = torch.randint(0, side * 4 // 5, (2,), generator=generator).tolist()
        masks[i, top : top + side // 7, left : left + side * 2 // 11] = True
    lift = torch.nn.functional.adaptive_avg_pool2d(masks[:, None].float(), grid)[:, 0]
    return {"maps": torch.rand(images, grid, grid, generator=generator) + 2 + lift, "masks": masks}


def ours(parts: list[Scenes]) -> Evaluation:
    metrics = AnomalyMetrics(
        categories=[str(c) for c in range(len(parts))], num_images=sum(len(p["maps"]) for p in parts)
    )
    first = 0
    for category, part in enumerate(parts):
        for start in range(0, len(part["maps"]), BATCH):
            batch = {name: value[start : start + BATCH] for name, value in part.items()}
            count = len(batch["maps"])
            metrics.update(
                **batch,
                scores=batch["maps"].amax((1, 2)),
                has_mask=torch.ones(count, dtype=torch.bool),
                labels=torch.arange(count) % 2,
                categories=torch.full((count,), category),
                indices=torch.arange(first, first + count),
            )
            first += count
    return metrics.compute()


def pixels(part: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of every pixel, flat."""
    return part["masks"].numpy().ravel(), upsample(part["maps"], part["masks"].shape[1:]).numpy().ravel()


def all_by_sorting(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), f1


def exact_torchmetrics(labels: np.ndarray, scores: np.ndarray) -> float:
    metric = BinaryAUROC(thresholds=None)  # puts what leaves 0..1 through a sigmoid: scores here stay inside
    metric.update(torch.from_numpy(scores), torch.from_numpy(labels).long())
    return float(metric.compute())


def area(rate: np.ndarray, share: np.ndarray, limit: float = 0.3) -> float:
    """The area under covered `share` against false-positive `rate`, up to `limit` and divided by it."""
    inside = rate < limit
    rate, share = np.append(rate[inside], limit), np.append(share[inside], np.interp(limit, rate, share))
    return float(np.trapezoid(share, rate)) / limit


def threshold_loop(masks: np.ndarray, maps: np.ndarray, thresholds: np.ndarray) -> float:
    """AUPRO as it is written down: the regions' mean covered share at each of `thresholds`, descending."""
    labels, number = ndimage.label(masks, structure=np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]))
    rate, share = np.zeros(len(thresholds) + 1), np.zeros(len(thresholds) + 1)
    for i, threshold in enumerate(thresholds, 1):
        found = maps >= threshold
        rate[i] = found[~masks].mean()
        share[i] = np.mean(ndimage.mean(found, labels, np.arange(1, number + 1)))
    return area(rate, share)


def gathered_loop(masks: np.ndarray, maps: np.ndarray, thresholds: np.ndarray) -> float:
    """The same with the scores of each region and of the good pixels taken out of the maps once."""
    regions = []
    for mask, scores in zip(masks, maps, strict=True):
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[labels == region] for region in range(1, number + 1)]
    good = maps[~masks]
    rate, share = np.zeros(len(thresholds) + 1), np.zeros(len(thresholds) + 1)
    for i, threshold in enumerate(thresholds, 1):
        rate[i] = (good >= threshold).mean()
        share[i] = np.mean([(region >= threshold).mean() for region in regions])
    return area(rate, share)


def prove() -> None:
    """Every opponent gives our numbers: by sorting on one category, by thresholds where all can be tried.

    To 1e-5, but for AP and F1-max, which the bins round to 1e-4, and adeval, whose curve has no points between good
    pixels.
    """
    part = scenes(BATCH, 0)
    row = ours([part]).categories["0"]
    labels, scores = pixels(part)
    auroc, *others = all_by_sorting(labels, scores)
    prove_equal(torch.tensor(row.pixel_auroc), torch.tensor(auroc), "scikit-learn")
    prove_equal(torch.tensor([row.pixel_ap, row.pixel_f1max]), torch.tensor(others), "scikit-learn", tolerance=1e-4)
    theirs = torch.tensor(exact_torchmetrics(labels, scores / 4))
    prove_equal(torch.tensor(row.pixel_auroc), theirs, "torchmetrics")
    small = scenes(4, 0, side=40, grid=40)
    aupro = torch.tensor(ours([small]).categories["0"].aupro)
    masks, maps = small["masks"].numpy(), small["maps"].numpy()
    for loop in (threshold_loop, gathered_loop):
        prove_equal(aupro, torch.tensor(loop(masks, maps, np.unique(maps)[::-1])), "loop over all thresholds")
    theirs, _ = calculate_au_pro(list(masks), list(maps), num_thresholds=int((~masks).sum()))
    prove_equal(aupro, torch.tensor(theirs), "adeval with all thresholds", tolerance=1e-3)


def rows(quick: bool) -> list[Row]:
    prove()
    categories, images = (3, BATCH) if quick else (CATEGORIES, IMAGES)
    parts = [scenes(images, seed) for seed in range(categories)]
    order = cycle(parts)
    current: dict[str, np.ndarray] = {}

    def advance() -> None:
        part = next(order)
        labels, scores = pixels(part)
        maps = scores.reshape(part["masks"].shape)
        thresholds = np.linspace(maps.min(), maps.max(), 100)[::-1]
        current.update(labels=labels, scores=scores, scaled=scores / 4, maps=maps, thresholds=thresholds)
        current["masks"] = part["masks"].numpy()

    seconds = in_turn(
        {
            "next": advance,
            "ours": lambda: ours(parts),
            "scikit-learn": lambda: roc_auc_score(current["labels"], current["scores"]),
            "all": lambda: all_by_sorting(current["labels"], current["scores"]),
            "torchmetrics": lambda: exact_torchmetrics(current["labels"], current["scaled"]),
            "loop": lambda: threshold_loop(current["masks"], current["maps"], current["thresholds"]),
            "gathered": lambda: gathered_loop(current["masks"], current["maps"], current["thresholds"]),
            "adeval": lambda: calculate_au_pro(list(current["masks"]), list(current["maps"])),
        },
        repeats=1 if quick else 5,
    )
    theirs = {name: [second * categories for second in values] for name, values in seconds.items()}
    size = f"{categories} x {images} images of 224 px"
    listed = [
        ("pixel AUROC", "scikit-learn", "roc_auc_score", 50),
        ("pixel AUROC, AP, F1-max", "all", "scikit-learn, sorting three times", None),
        ("pixel AUROC", "torchmetrics", "exact BinaryAUROC", 20),
        ("AUPRO", "loop", "loop over 100 thresholds", 20),
        ("AUPRO", "gathered", "the same loop over gathered scores", None),
        ("AUPRO", "adeval", "adeval, 100 thresholds", 2),
    ]
    table = [
        compare(f"{what}, {size}: {opponent}", seconds["ours"], theirs[name], target)
        for what, name, opponent, target in listed
    ]
    return [*table, memory(categories, images)] if Path("/proc/self/status").is_file() else table


def memory(categories: int, images: int) -> Row:
    """Peak of anonymous memory above the inputs, in a process of its own."""
    command = [sys.executable, __file__, str(categories), str(images)]
    taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    name = f"peak memory of the pixel metrics, {categories} x {images} images: {MEGABYTES} MB"
    return compare(name, [taken], [MEGABYTES], 1, "MB")


def anonymous_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6


def measure_memory(categories: int, images: int) -> float:
    """Megabytes of anonymous memory that `ours` takes at most, above what holds its inputs; looks each millisecond."""
    ours([scenes(2, 0)])  # what is allocated once
    parts = [scenes(images, seed) for seed in range(categories)]
    before, peak, done = anonymous_megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak.append(anonymous_megabytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    ours(parts)
    done.set()
    watcher.join()
    return max(peak) - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(measure_memory(*map(int, sys.argv[1:])))
