"""ROC curves from the image scores and the counts of pixels that `AnomalyMetrics` holds, and their plot."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from uniad_lightning.metrics.anomaly_metrics import POOLED, AnomalyMetrics
from uniad_lightning.metrics.histogram import by_score

POINTS = 200  # of a curve, at most; plots need no more


class Curve(NamedTuple):
    """A ROC curve from (0, 0) to (1, 1), both arrays ascending."""

    false_positives: np.ndarray  # (K,) float64, share of the good ones above a boundary
    true_positives: np.ndarray  # (K,) float64, share of the defective ones above it


def image_curves(metrics: AnomalyMetrics) -> dict[str, Curve]:
    """A curve for each category that has both kinds of image, in order, and the pooled one.

    The states of `metrics` have to be those of all ranks, as within its `sync_context`.
    """
    scores, labels, ids = (
        state.cpu() for state in (metrics.image_scores, metrics.image_labels, metrics.image_categories)
    )
    curves = {}
    for i, name in enumerate(metrics.categories):
        ranked = (ids == i) | (labels == 0) if name in metrics.foreign else ids == i
        curves[name] = trace(*by_score(scores[ranked], labels[ranked]))
    curves[POOLED] = trace(*by_score(scores, labels))
    return {name: curve for name, curve in curves.items() if curve is not None}


def pixel_curves(metrics: AnomalyMetrics) -> dict[str, Curve]:
    """The same for pixels, from the counts behind the last `compute`, which are those of all ranks."""
    curves = {name: trace(counts.positives, counts.negatives) for name, counts in metrics.pixel_counts.items()}
    return {name: curve for name, curve in curves.items() if curve is not None}


def trace(positives: Tensor, negatives: Tensor) -> Curve | None:
    """The curve of counts (K,) at descending thresholds; None if a class is missing.

    At most `POINTS` points are kept, evenly spaced along the curve.
    """
    if not positives.sum() or not negatives.sum():
        return None
    rates = [torch.cat([counts.new_zeros(1), counts.cumsum(0)]).double() for counts in (negatives, positives)]
    across, up = (rate / rate[-1] for rate in rates)
    if len(up) > POINTS:
        kept = torch.searchsorted(across + up, torch.linspace(0, 2, POINTS, dtype=torch.float64)).unique()
        across, up = across[kept], up[kept]
    return Curve(across.numpy(), up.numpy())


def draw_roc(curves: Mapping[str, Curve], aurocs: Mapping[str, float], *, title: str) -> Image.Image:
    """All `curves` in one plot, with `aurocs` in the legend; the pooled one is black."""
    figure = Figure(figsize=(8, 5.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colors = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, max(len(curves) - 1, 1)))
    for (name, curve), color in zip(curves.items(), [*colors, "black"], strict=False):
        pooled = name == POOLED
        style = {"color": "black", "linewidth": 2.2} if pooled else {"color": color, "linewidth": 1.2}
        axes.plot(curve.false_positives, curve.true_positives, label=f"{name}  {100 * aurocs[name]:.1f}", **style)
    axes.set(title=title, xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", title="AUROC in %", fontsize=8, title_fontsize=8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
