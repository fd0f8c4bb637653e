"""Metrics by scikit-learn and by brute force to hold ours against, and counts of scores to take ours from."""

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from uniad_lightning.metrics.histogram import Counts, sort_keys


def empty(bins):
    whole = torch.zeros(bins, dtype=torch.int64)
    return Counts(whole, whole.clone(), whole.double())


def count(scores, labels, place, bins):
    counts = empty(bins)
    counts.add(place(sort_keys(scores))[None], labels[None], torch.ones(int(labels.sum()), dtype=torch.float64))
    return counts


def threshold_loop(scores, masks, limit=0.3):
    """AUPRO by brute force: at each threshold, the false-positive rate and the mean covered share of the regions."""
    regions = []
    for score, mask in zip(scores, masks, strict=True):
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [score[labels == region] for region in range(1, number + 1)]
    thresholds = np.unique(scores)[::-1]

    def reached(values):
        return 1 - np.searchsorted(np.sort(values), thresholds) / len(values)

    points = [(0.0, 0.0)]
    for rate, share in zip(
        reached(scores[~masks]), np.mean([reached(region) for region in regions], axis=0), strict=True
    ):
        if rate > limit:
            (rate0, share0) = points[-1]
            points.append((limit, share0 + (share - share0) * (limit - rate0) / (rate - rate0)))
            break
        points.append((rate, share))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False)) / limit


def scikit_learn(labels, scores):
    """(AUROC, average precision, F1-max)."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-9))
    return roc_auc_score(labels, scores), average_precision_score(labels, scores), f1
