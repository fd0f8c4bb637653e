"""Draw the pictures of docs/concepts.md with the package's own mask and jitter: `python scripts/draw_concepts.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.neighbor_mask import neighbor_mask

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
GRID, WINDOW, CHANNELS = (14, 14), (7, 7), 272  # P 4.2
GREY, BLUE, ORANGE, GREEN = "#d9d9d9", "#9ecae1", "#fdae6b", "#a1d99b"


def draw_mask(path: Path) -> None:
    """What three tokens may not attend to, and the whole mask."""
    mask = neighbor_mask(GRID, WINDOW)
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
    for axes, (row, column) in zip(panels[:3], ((6, 6), (0, 0), (9, 13)), strict=True):
        axes.imshow(mask[row * GRID[1] + column].reshape(GRID), cmap="Oranges", vmin=0, vmax=1.6)
        axes.plot(column, row, "o", color="black")
        axes.set(xticks=[], yticks=[], title=f"token ({row}, {column})")
        for place in range(15):
            axes.axhline(place - 0.5, color="white", linewidth=0.5)
            axes.axvline(place - 0.5, color="white", linewidth=0.5)
    panels[3].imshow(mask, cmap="Oranges", vmin=0, vmax=1.6)
    panels[3].set(title="all 196 tokens", xlabel="may not look at", ylabel="token")
    figure.savefig(path, dpi=100)


def draw_jitter(path: Path) -> None:
    """How long the noise is beside the token, measured, over the scale."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 2000, CHANNELS)
    scales = [0, 2, 5, 10, 15, 20, 25, 30]
    lengths = []
    for scale in scales:
        noise = FeatureJitter(scale=scale, prob=1.0, per="batch").train()(tokens) - tokens
        lengths.append((noise.norm(dim=2) / tokens.norm(dim=2)).mean().item())
    figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
    axes.plot(scales, lengths, "o-", color="tab:blue")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.axvline(20, color="tab:orange", linestyle="--", label="the paper's 20")
    axes.set(xlabel="model.jitter.scale (α)", ylabel="length of the noise / of the token", ylim=0)
    axes.legend()
    figure.savefig(path, dpi=100)


def _box(axes: Axes, x: float, y: float, text: str, colour: str, width: float = 1.5, height: float = 0.8) -> None:
    shape = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.04", facecolor=colour)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="black"))


def draw_network(path: Path) -> None:
    """The way of an image: features, jitter, encoder, decoder with a query in each layer, difference, map."""
    figure, axes = plt.subplots(figsize=(11, 4.7), layout="constrained")
    axes.set(xlim=(0, 15.6), ylim=(-1.3, 5.2))
    axes.axis("off")
    row = 1.2
    for x, text, colour in (
        (1, "image", "white"), (3.1, "backbone,\nfrozen", GREY), (5.2, "jitter\n(training)", GREEN),
        (7.3, "encoder\n4 layers", BLUE),
    ):  # fmt: skip
        _box(axes, x, row, text, colour)
    for x in (1, 3.1, 5.2):
        _arrow(axes, (x + 0.8, row), (x + 1.3, row))
    for layer, x in enumerate((9.2, 10.5, 11.8, 13.1)):
        _box(axes, x, row, f"decoder\n{layer + 1}", BLUE, width=1)
        _box(axes, x, 3, f"query {layer + 1}", ORANGE, width=1, height=0.6)
        _arrow(axes, (x, 2.65), (x, 1.68))
        if layer:  # the first has the encoder's output alone
            _arrow(axes, (x - 0.75, row), (x - 0.55, row))
        _arrow(axes, (x, 0.1), (x, 0.72))
    axes.plot([7.3, 7.3, 13.1], [0.76, 0.1, 0.1], color="black", linewidth=1)
    axes.text(10.2, -0.25, "the encoder's output, to each layer", ha="center", fontsize=8)
    _box(axes, 14.8, row, "recon-\nstruction", "white", width=1.3)
    _arrow(axes, (13.65, row), (14.1, row))
    _box(axes, 14.8, 4.5, "difference:\nanomaly map", "white", width=1.5)
    _arrow(axes, (14.8, 1.68), (14.8, 4.02))
    axes.plot([4.15, 4.15], [row, 4.5], color="black", linewidth=1)
    _arrow(axes, (4.15, 4.5), (13.98, 4.5))
    axes.text(9, 4.65, "features, 14 x 14 tokens of 272 channels", ha="center", fontsize=8)
    axes.text(11.15, 3.65, "learned, the same for every image", ha="center", fontsize=8)
    axes.plot([6.5, 6.5, 13.65, 13.65], [-0.45, -0.6, -0.6, -0.45], color="black", linewidth=0.8)  # of all attentions
    axes.text(10.1, -0.95, "neighbor mask in every attention of encoder and decoder", ha="center", fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw_network(IMAGES / "network.png")
    draw_mask(IMAGES / "neighbor_mask.png")
    draw_jitter(IMAGES / "jitter.png")
