"""Which metrics callbacks may monitor: those that the test split defines, as its listing shows before the training."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L

from uniad_lightning.data.records import Splits
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.metrics.anomaly_metrics import Row

ROWS = ("mean", "pooled")
_OF_IMAGES = tuple(name for name in Row._fields if name.startswith("image_"))
_OF_PIXELS = tuple(name for name in Row._fields[1:] if name not in _OF_IMAGES)
_ALL = [f"{row}/{name}" for row in ROWS for name in (*_OF_IMAGES, *_OF_PIXELS)]


def defined_metrics(splits: Splits) -> dict[str, int]:
    """The metrics that a test split defines, such as `mean/pixel_auroc`, with the number of categories that they cover.

    Image metrics need good and defective images, pixel metrics a mask. A category without train images is ranked
    against the good images of all categories.
    """
    labels: dict[str, set[int]] = defaultdict(set)
    masked = set()
    for record in splits.test:
        labels[record.category].add(record.label)
        if record.masks:
            masked.add(record.category)
    everywhere = set().union(*labels.values())
    trained = {record.category for record in splits.train}
    ranked = {name for name, own in labels.items() if len(own if name in trained else own | everywhere & {0}) == 2}
    over = {
        **{f"mean/{name}": len(ranked) for name in _OF_IMAGES},
        **{f"mean/{name}": len(masked) for name in _OF_PIXELS},
        **{f"pooled/{name}": len(labels) * (len(everywhere) == 2) for name in _OF_IMAGES},
        **{f"pooled/{name}": len(labels) * bool(masked) for name in _OF_PIXELS},
    }
    return {name: count for name, count in over.items() if count}


def choose_monitor(splits: Splits, *, by_class: bool) -> tuple[str, str]:
    """The metric by which the best epoch is chosen, and why; `by_class`: whole classes are anomalies (Sec. 4.4).

    Raises InputError for a test split that defines none.
    """
    defined = defined_metrics(splits)
    choices = {
        "mean/pixel_auroc": "the reference implementation's",
        "mean/image_auroc": "the test split has no masks",
        "pooled/image_auroc": "no category has good and defective test images of its own",
    }
    if by_class:
        choices = {"pooled/image_auroc": "whole classes are anomalies, data.normal_classes"}
    for name, reason in choices.items():
        if name in defined:
            few = name.startswith("mean/") and defined[name] < len(splits.categories)
            return name, reason + f"; over {defined[name]} of {len(splits.categories)} categories" * few
    raise InputError(
        "callbacks=best_on_test: the test split has not both good and defective images, so that no epoch is better "
        "than another; add the missing ones, or leave it out"
    )


def check_monitors(callbacks: Mapping[str, L.Callback], splits: Splits, *, validations: int) -> None:
    """Raises InputError for a callback that monitors an evaluation's metric which the `splits` leave undefined.

    `validations` is the number of evaluations while training.
    """
    for name, monitor in _monitors(callbacks):
        key = f"callbacks.{name}.monitor={monitor}"
        defined = defined_metrics(splits)
        if monitor not in _ALL:
            raise InputError(f"{key}: no such metric.{did_you_mean(monitor, _ALL)} Defined here: {', '.join(defined)}")
        if monitor not in defined:
            raise InputError(
                f"{key}: is undefined on this test split ({_reason(monitor)}); monitor one of {', '.join(defined)}"
            )
        if not validations:
            raise InputError(f"{key}: needs an evaluation while training, and there is none; give validate_every=1")


def _monitors(callbacks: Mapping[str, L.Callback]) -> Iterator[tuple[str, str]]:
    """Names of the callbacks that monitor a metric of an evaluation, with that metric."""
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and (name == "best" or monitor.partition("/")[0] in ROWS):
            yield name, monitor


def _reason(monitor: str) -> str:
    if monitor.partition("/")[2] in _OF_PIXELS:
        return "no test image has a mask"
    return "it lacks good or defective images" if monitor.startswith("pooled/") else "no category has both labels"


class RefuseUndefined(L.Callback):
    """Ends a training at an evaluation that leaves undefined what a callback monitors.

    Lightning would treat NaN as the worst value, and keep it as the best where there is no other.
    """

    def __init__(self, *, callbacks: Mapping[str, L.Callback]):
        self.callbacks = callbacks

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Called by Lightning before checkpoint callbacks."""
        for name, monitor in _monitors(self.callbacks):
            value = trainer.callback_metrics.get(monitor)
            if value is not None and value.isnan():
                raise InputError(
                    f"callbacks.{name}.monitor={monitor}: is undefined in this evaluation, in which "
                    f"{pl_module.vanished_masks} masks have no pixel left at the size of the maps; monitor another, "
                    "such as mean/image_auroc, or give a larger data.image_size"
                )
