"""Boundaries that are given where a detector is loaded, in place of those that `uniad calibrate` has set."""

import math
from collections.abc import Mapping, Sequence

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.inspection.boundary import Boundary, Calibration

GivenBoundary = float | Mapping[str, float] | None
_EXPECTED = "expected a score, or one for each category, as in boundary='{screw: 12.5, tile: 9}'"


def with_given(
    calibration: Calibration | None, given: GivenBoundary, *, categories: Sequence[str]
) -> Calibration | None:
    """`calibration` with its boundaries at the scores `given`: one for all images, or one by category.

    One score decides every image. Scores by category move those categories' own boundaries, which then decide the
    images in which the category is found; the other boundaries stay. What pixels are marked and the scale of
    normalised scores, which come from good images, stay as well. `categories` are those of the training.

    Raises InputError for anything but finite numbers, an unknown category, and a detector without a calibration.
    """
    if given is None:
        return calibration
    scores = {str(name): _score(score) for name, score in given.items()} if isinstance(given, Mapping) else {}
    if isinstance(given, Mapping) and not scores:
        raise InputError(f"boundary={{}}: {_EXPECTED}")
    if calibration is None:
        raise InputError(
            f"boundary={given}: the detector has no calibration to move; its good images also say which pixels are "
            "marked and what normalised scores mean: set one with uniad calibrate ckpt_path=..., and export it again"
        )
    if not isinstance(given, Mapping):
        score = _score(given)
        categories_own = {name: _at(own, score) for name, own in calibration.categories.items()}
        return calibration._replace(
            method=f"boundary={score:g}", overall=_at(calibration.overall, score), categories=categories_own
        )
    own = dict(calibration.categories)
    known = {composed(name): name for name in (*categories, *own)}
    for name, score in scores.items():
        if composed(name) not in known:
            near = did_you_mean(name, known)
            raise InputError(f"boundary: has no category {name}.{near} The detector's: {', '.join(known) or 'none'}")
        name = known[composed(name)]
        own[name] = _at(own.get(name, calibration.overall), score)
    moved = ", ".join(f"{name}: {score:g}" for name, score in scores.items())
    return calibration._replace(method=f"boundary={{{moved}}}", categories=own, by_category=True)


def _score(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"boundary={value!r:.40}: {_EXPECTED}")
    return float(value)


def _at(boundary: Boundary, score: float) -> Boundary:
    """`boundary` moved to `score`; how many good images are above it there is not known."""
    return boundary._replace(score=score, images=0, rate=math.nan, low=0.0, high=1.0)
