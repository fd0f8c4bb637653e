"""Boundaries between good and defective, set on images that the detector has not seen."""

import math
from collections.abc import Callable
from functools import partial

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


def check_settings(*, by: str, **shares: float) -> None:
    """Raises InputError for a method that is none, and for shares outside (0, 1)."""
    if by not in METHODS:
        raise InputError(f"by={by}: expected one of {', '.join(METHODS)}")
    for name, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise InputError(f"{name}={value}: expected a share above 0 and below 1, such as 0.01")


def only_chosen_on(held_out: Scores) -> list[str]:
    """What to warn of where labelled images chose a boundary and nothing else says how it does."""
    if len(held_out.score):
        return []
    return ["no held-out images: the false-alarm rate and the table are of the images that chose the boundary"]


def set_boundaries(held_out: Scores, test: Scores, *, by: str, rate: float, recall: float) -> Calibration:
    """The boundary for all products and one for each, set `by` one of `METHODS`.

    `rate` takes good images alone; `f1` and `recall` choose the score on the labelled images of `test`. Raises
    InputError without the images it needs.
    """
    set_one = {
        "rate": lambda good, _: _by_rate(good, rate),
        "f1": lambda good, labelled: _by_labels(good, labelled, score_at_best_f1),
        "recall": lambda good, labelled: _by_labels(good, labelled, partial(score_at_recall, recall=recall)),
    }[by]
    overall = set_one(held_out, test)
    if overall is None:
        raise InputError(nothing_to_calibrate_on(by))
    products = {}
    for name in sorted({record.category for record in (*held_out.records, *test.records) if record.category}):
        own = set_one(held_out.of(name), test.of(name))
        if own is not None:
            products[name] = own
    method = {"rate": f"rate={rate}", "f1": "f1", "recall": f"recall={recall}"}[by]
    return Calibration(method, overall, products)


def _by_rate(good: Scores, rate: float) -> Boundary | None:
    return at_rate(good.score, good.peak, rate) if len(good.score) else None


def _by_labels(held_out: Scores, labelled: Scores, choose: Callable[..., float]) -> Boundary | None:
    """The boundary at the score that `choose` finds, its false-alarm rate estimated on held-out images if any."""
    good, defective = labelled.labelled(0), labelled.labelled(1)
    if not len(good.score) or not len(defective.score):
        return None
    known = held_out if len(held_out.score) else good
    return at_score(choose(good.score, defective.score), known.score, known.peak)


def nothing_to_calibrate_on(by: str) -> str:
    """What to say where the images are missing that a boundary set `by` needs."""
    if by == "rate":
        return (
            "ckpt_path: the training used all good images, and a boundary set on those would be too low; train with "
            "data.held_out=0.1, or name further good images with good=FOLDER"
        )
    return f"by={by}: needs good and defective test images; use by=rate, which needs good ones alone"


def too_few(calibration: Calibration, rate: float) -> list[str]:
    """What to warn of where the images of a boundary are too few to support `rate`: nothing, or a line or two."""
    needed = math.ceil(1 / rate - 1 - 1e-9)
    overall, lines = calibration.overall, []
    if not supports(overall.images, rate):
        lines.append(
            f"{overall.images} good images cannot support a false-alarm rate of {rate:.2%}, which needs {needed}; the "
            f"highest of their scores is taken: expect {overall.rate:.1%} ({overall.low:.1%} to {overall.high:.1%})"
        )
    few = [f"{name} {own.images}" for name, own in calibration.products.items() if not supports(own.images, rate)]
    if few:
        lines.append(f"the products' own boundaries have fewer than those {needed} good images: {', '.join(few)}")
    return lines
