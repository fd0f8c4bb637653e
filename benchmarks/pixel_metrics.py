"""Time of the pixel metrics: histograms against sorting every pixel with scikit-learn, in one run.

    python benchmarks/pixel_metrics.py [--images 40] [--categories 4]

Both get the same 14x14 maps and 224x224 masks and give pixel AUROC, AP and F1-max per category and pooled; ours gives
AUPRO as well. Prints seconds, their ratio, and the largest difference of an AUROC.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from uniad_lightning.metrics import AnomalyMetrics
from uniad_lightning.scoring import upsample


def scenes(images: int, seed: int) -> dict[str, torch.Tensor]:
    """Maps (n, 14, 14), higher where the mask (n, 224, 224), a rectangle in every second image, is set."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(images, 224, 224, dtype=torch.bool)
    for i in range(0, images, 2):
        top, left = torch.randint(0, 180, (2,), generator=generator).tolist()
        masks[i, top : top + 32, left : left + 40] = True
    lift = torch.nn.functional.adaptive_avg_pool2d(masks[:, None].float(), 14)[:, 0]
    return {"maps": torch.rand(images, 14, 14, generator=generator) + 2 + lift, "masks": masks}


def ours(parts: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    metrics = AnomalyMetrics(
        categories=[str(c) for c in range(len(parts))], num_images=sum(len(p["maps"]) for p in parts)
    )
    first = 0
    for category, part in enumerate(parts):
        count = len(part["maps"])
        metrics.update(
            **part,
            scores=part["maps"].amax((1, 2)),
            has_mask=torch.ones(count, dtype=torch.bool),
            labels=part["masks"].flatten(1).any(1).long(),
            categories=torch.full((count,), category),
            indices=torch.arange(first, first + count),
        )
        first += count
    result = metrics.compute()
    return {**{name: row.pixel_auroc for name, row in result.categories.items()}, "pooled": result.pooled.pixel_auroc}


def sorting(parts: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    scores = [upsample(part["maps"], (224, 224)).numpy().ravel() for part in parts]
    truth = [part["masks"].numpy().ravel() for part in parts]
    rows = {str(c): (truth[c], scores[c]) for c in range(len(parts))}
    rows["pooled"] = (np.concatenate(truth), np.concatenate(scores))
    found = {}
    for name, (labels, values) in rows.items():
        found[name] = roc_auc_score(labels, values)
        average_precision_score(labels, values)
        precision, recall, _ = precision_recall_curve(labels, values)
        np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="of each category")
    parser.add_argument("--categories", type=int, default=4)
    options = parser.parse_args()
    parts = [scenes(options.images, seed) for seed in range(options.categories)]
    seconds, results = [], []
    for measure in (ours, sorting):
        start = time.perf_counter()
        results.append(measure(parts))
        seconds.append(time.perf_counter() - start)
    difference = max(abs(results[0][name] - results[1][name]) for name in results[1])
    pixels = options.images * options.categories * 224 * 224
    print(f"{pixels / 1e6:.1f} million pixels: histograms {seconds[0]:.2f} s, sorting {seconds[1]:.2f} s")
    print(f"ratio {seconds[1] / seconds[0]:.1f}, largest difference of an AUROC {difference:.1e}")


if __name__ == "__main__":
    main()
