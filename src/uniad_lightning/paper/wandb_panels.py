"""The panels of the W&B pages: they name the metrics that a training logs, as `tracking.monitors` names them."""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from uniad_lightning.results.run_folder import COLUMNS
from uniad_lightning.tracking.boards import STEP


def runs(group: str, columns: Sequence[str]) -> wr.Runset:
    """The runs of a group, in a table of their names and `columns`."""
    visible = ["run:displayName", *columns]
    return wr.Runset(name=group, filters=f"Metric('Group') == '{group}'", visible_columns=visible, lock_columns=True)


def training() -> list[Any]:
    """Loss, learning rate, speed and memory over the steps."""
    return [
        _lines("loss", ["train/loss_step", "train/loss_epoch"]),
        _lines("learning rate", ["train/lr"]),
        _lines("images per second", ["train/images_per_second"]),
        _lines("GPU memory in GiB", ["train/gpu_memory_gib"]),
    ]


def evaluations() -> list[Any]:
    """Each metric of detection and localization over the steps."""
    kinds = {"mean over categories": "mean", "all under one boundary": "pooled"}
    tasks = {
        "detection": [name for name in COLUMNS if name.startswith("image_")],
        "localization": [name for name in COLUMNS if not name.startswith("image_")],
    }
    return [
        _lines(f"{task}, {title}", [f"{kind}/{name}" for name in names])
        for task, names in tasks.items()
        for title, kind in kinds.items()
    ]


def roc() -> list[Any]:
    """The ROC curves as images and as charts."""
    names = ("roc/image", "roc/pixel")
    images = [wr.MediaBrowser(title=name, media_keys=[name]) for name in names]
    charts = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": f"{name}_chart_table"}},
            chart_name="wandb/lineseries/v0",  # the preset of `wandb.plot.line_series`, and its columns
            chart_fields={column: column for column in ("step", "lineKey", "lineVal")},
            chart_strings={"title": name, "xname": "false-positive rate"},
        )
        for name in names
    ]
    return [*images, *charts]


def heatmaps(categories: Sequence[str]) -> list[Any]:
    """The heatmap panels of each category."""
    return [wr.MediaBrowser(title=name, media_keys=[f"heatmaps/{name}"]) for name in categories]


def _lines(title: str, metrics: Sequence[str]) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=STEP, y=list(metrics))


def bars(title: str, metrics: Sequence[str]) -> wr.BarPlot:
    """One bar per metric and run, the last value."""
    return wr.BarPlot(title=title, metrics=list(metrics))


def bars_over_runs(title: str, metrics: Sequence[str], *, by: str | None, layout: wr.Layout) -> wr.BarPlot:
    """One bar per metric and value of the setting `by`: the mean over runs, with their standard deviation."""
    return wr.BarPlot(
        title=title,
        metrics=list(metrics),
        groupby=None if by is None else f"config.{by}.value",  # W&B's name of a key that has dots itself
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        aggregate=True,
        layout=layout,
    )
