"""Scores of good train images by detectors fitted without them, so that every good image sets the boundary."""

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from typing import Any

from omegaconf import DictConfig

from uniad_lightning.calibration.scores import Scores, score_records
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.training.refit import refit
from uniad_lightning.training.train_images import can_refit


def can_cross_fit(module: AnomalyModule, checkpoint: dict[str, Any], splits: Splits, folds: int | None) -> bool:
    """Whether each train image can be scored by a detector fitted in seconds without it."""
    init_from = checkpoint["config"].get("init_from")
    return folds is not None and can_refit(one_pass=module.one_pass, init_from=init_from, train=splits.train)


def cross_fit(engine: TorchEngine, checkpoint: dict[str, Any], given: DictConfig, splits: Splits, folds: int) -> Scores:
    """Scores of the train images of `splits`, each by a detector fitted to the images of the other folds.

    The only image of a category is left out. `given` is the data configuration, as `build_saved_data` takes it.
    """
    scores = []
    for number, fold in enumerate(_folds(splits.train, folds), start=1):
        left_out = {record.image for record in fold}
        rest = [record for record in splits.train if record.image not in left_out]
        known = {record.category for record in rest}
        fold = [record for record in fold if record.category in known]
        if not fold:
            continue
        fitted = copy(engine)
        fitted.module = refit(engine.module, checkpoint, given, rest).to(engine.device)
        fitted.module.prepare()
        scores.append(score_records(fitted, fold, label=f"fold {number} of {folds}"))
    return Scores.joined(scores)


def _folds(records: Sequence[Record], folds: int) -> list[list[Record]]:
    """Each image once, in one of the folds, which share the images of each category evenly."""
    seen: dict[str, int] = defaultdict(int)
    parts: list[list[Record]] = [[] for _ in range(folds)]
    for record in records:
        if not record.tile:
            parts[seen[record.category] % folds].append(record._replace(tile=None))
            seen[record.category] += 1
    return parts
