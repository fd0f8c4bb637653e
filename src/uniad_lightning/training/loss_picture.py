"""The picture of a training: its loss over the steps, and the AUROCs of its validations."""

import csv
import math
from contextlib import suppress
from io import BytesIO
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from uniad_lightning.errors import system_reason
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.results.run_folder import LOSS
from uniad_lightning.results.written_files import note
from uniad_lightning.training.build import warn

_LOGS = "logs/version_*/metrics.csv"  # of the CSV logger, a version for each time the training was resumed
_LOSS = "train/loss_step"
_AUROCS = {"mean/image_auroc": "image AUROC", "mean/pixel_auroc": "pixel AUROC"}
_WIDE = 10  # a range of losses from this ratio on is drawn on a logarithmic axis


def draw_loss(folder: Path) -> None:
    """Draw what the run in `folder` has logged as its `loss.png`; nothing where that is fewer than two losses."""
    logged = _read(folder)
    loss = logged.pop(_LOSS)
    if len(loss) < 2:
        return
    aurocs = {name: curve for name, curve in logged.items() if len(curve) > 1}  # one is that of the end
    rows = 1 + bool(aurocs)
    figure = Figure(figsize=(7, 1 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(loss.keys(), loss.values(), color="0.75", linewidth=0.8, label="of a batch")
    axes[0].plot(loss.keys(), _smoothed([*loss.values()]), color="C0", label="smoothed")
    if 0 < min(loss.values()) * _WIDE < max(loss.values()):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("training loss")
    for name, curve in aurocs.items():
        axes[1].plot(curve.keys(), [100 * value for value in curve.values()], marker=".", label=_AUROCS[name])
        axes[1].set_ylabel("test split, %")
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    axes[-1].set_xlabel("step")
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110)
    try:
        note(folder / LOSS)
        write_whole(folder / LOSS, drawn.getvalue())
    except OSError as error:  # the evaluation, which is still to come, is worth more
        warn(f"{folder / LOSS}: cannot be written; {system_reason(error)}")


def _read(folder: Path) -> dict[str, dict[int, float]]:
    """What is drawn, its finite values by step; of a step that was trained twice the last. Broken rows are left out."""
    curves: dict[str, dict[int, float]] = {name: {} for name in (_LOSS, *_AUROCS)}
    for path in sorted(folder.glob(_LOGS), key=lambda path: int(path.parent.name.rpartition("_")[2])):
        with path.open(newline="", errors="replace") as file:
            for row in csv.DictReader(file):
                for name, curve in curves.items():
                    with suppress(TypeError, ValueError):  # the last row before a kill may be cut
                        value = float(row.get(name) or "nan")
                        if math.isfinite(value):
                            curve[int(row["step"])] = value
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def _smoothed(values: list[float]) -> list[float]:
    """Means over a twentieth of the values around each."""
    reach, count = len(values) // 40, len(values)
    sums = [0.0, *accumulate(values)]
    ends = [(max(0, place - reach), min(count, place + reach + 1)) for place in range(count)]
    return [(sums[last] - sums[first]) / (last - first) for first, last in ends]
