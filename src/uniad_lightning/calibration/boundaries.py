"""Boundaries between good and defective, set on images that the detector was not trained on."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import (
    Boundary,
    Calibration,
    at_rate,
    at_score,
    score_at_best_f1,
    score_at_recall,
    supports,
)

METHODS = ("rate", "f1", "recall")
DECIDING = ("category", "one")


def check_settings(*, by: str, boundaries: str, folds: Any, **shares: float) -> None:
    """Raises InputError for an unknown method, a number of folds that is none, and for shares outside (0, 1)."""
    for key, value, known in (("by", by, METHODS), ("boundaries", boundaries, DECIDING)):
        if value not in known:
            raise InputError(f"{key}={value}: expected one of {', '.join(known)}")
    if folds is not None and (isinstance(folds, bool) or not isinstance(folds, int) or folds < 2):
        raise InputError(f"folds={folds}: expected a whole number of at least 2, or null for none")
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise InputError(f"{name}={share}: expected a share above 0 and below 1, such as 0.01")


def warn_without_held_out(held_out: Scores) -> list[str]:
    """A warning where a boundary was chosen on labelled images and there are no other images to test it on; or none."""
    if len(held_out.score):
        return []
    return ["no held-out images: the false-alarm rate and the table are of the images that the boundary was chosen on"]


def set_boundaries(
    held_out: Scores, test: Scores, *, by: str, rate: float, recall: float, by_category: bool
) -> Calibration:
    """The boundary for all categories and one for each, set `by` one of `METHODS`; `by_category`: which decides.

    `rate` takes good images alone; `f1` and `recall` choose the score on the labelled images of `test`. Raises
    InputError where the images that it needs are missing.
    """
    set_boundary = {
        "rate": lambda good, _: _by_rate(good, rate),
        "f1": lambda good, labelled: _by_labels(good, labelled, score_at_best_f1),
        "recall": lambda good, labelled: _by_labels(good, labelled, partial(score_at_recall, recall=recall)),
    }[by]
    overall = set_boundary(held_out, test)
    if overall is None:
        raise InputError(missing_images_message(by))
    categories = {}
    for name in sorted({record.category for record in (*held_out.records, *test.records) if record.category}):
        own = set_boundary(held_out.of(name), test.of(name))
        if own is not None:
            categories[name] = own
    method = {"rate": f"rate={rate}", "f1": "f1", "recall": f"recall={recall}"}[by]
    return Calibration(method, overall, categories, by_category)


def _by_rate(good: Scores, rate: float) -> Boundary | None:
    return at_rate(good.score, good.peak, rate) if len(good.score) else None


def _by_labels(held_out: Scores, labelled: Scores, choose: Callable[..., float]) -> Boundary | None:
    """The boundary at the score that `choose` returns; its false-alarm rate is that of held-out images if any."""
    good, defective = labelled.labelled(0), labelled.labelled(1)
    if not len(good.score) or not len(defective.score):
        return None
    known = held_out if len(held_out.score) else good
    return at_score(choose(good.score, defective.score), known.score, known.peak)


def missing_images_message(by: str) -> str:
    """The error message where the images are missing that a boundary set `by` needs."""
    if by == "rate":
        return (
            "ckpt_path: the training used all good images, and a boundary set on those would be too low; train with "
            "data.held_out=0.1, or name further good images with good=FOLDER"
        )
    return f"by={by}: needs good and defective test images; use by=rate, which needs good ones alone"


def warn_of_none(calibration: Calibration, categories: Iterable[str]) -> list[str]:
    """A warning where categories have no boundary of their own, or none."""
    without = [name for name in categories if name not in calibration.categories]
    if not without:
        return []
    return [f"no boundary of its own for lack of images, so the one for all decides: {', '.join(without)}"]


def warn_of_too_few(calibration: Calibration, rate: float) -> list[str]:
    """Warnings, at most two, where a boundary was set on too few images to support `rate`."""
    needed = math.ceil(1 / rate - 1 - 1e-9)
    overall, lines = calibration.overall, []
    if not supports(overall.images, rate):
        lines.append(
            f"{overall.images} good images cannot support a false-alarm rate of {rate:.2%}, which needs {needed}; the "
            f"highest of their scores is taken: expect {overall.rate:.1%} ({overall.low:.1%} to {overall.high:.1%})"
        )
    few = [f"{name} {own.images}" for name, own in calibration.categories.items() if not supports(own.images, rate)]
    if few:
        lines.append(f"the categories' own boundaries have fewer than those {needed} good images: {', '.join(few)}")
    return lines
