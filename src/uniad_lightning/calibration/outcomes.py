"""False alarms and misses of boundaries on test images."""

from collections.abc import Sequence

import numpy as np

from uniad_lightning.calibration.boundaries import set_boundaries
from uniad_lightning.calibration.scores import Scores
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.results.outcomes import Outcome, with_sum

_RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
FURTHER = "further"  # shown for images, given besides the data set, whose category is not known
_ALARMING = 0.5  # share of the good ones
_BLIND = 0.9  # share of the defective images of a category; a boundary that misses more is useless there


def outcomes(calibration: Calibration, test: Scores) -> tuple[list[Outcome], list[Outcome]]:
    """False alarms and misses on the test images: of the boundary for all categories, and of the categories' own."""
    names = sorted({record.category for record in test.records})

    overall = [_outcome(name, calibration.overall, test.of(name)) for name in names]
    own = [
        _outcome(name, calibration.categories[name], test.of(name)) for name in names if name in calibration.categories
    ]
    return with_sum(overall), with_sum(own) if len(own) == len(overall) else own


def _outcome(name: str, boundary: Boundary, images: Scores) -> Outcome:
    good, defective = (images.labelled(label).score for label in (0, 1))
    alarms, misses = (good > boundary.score).sum(), (defective <= boundary.score).sum()
    return Outcome(name or FURTHER, boundary.score, len(good), int(alarms), len(defective), int(misses))


def at_rates(good: Scores, test: Scores, *, by_category: bool) -> dict[float, Outcome]:
    """False alarms and misses on the test images, all together, by the rate that the boundaries might be set for."""
    found = {}
    for rate in _RATES:
        calibration = set_boundaries(good, test, by="rate", rate=rate, recall=1.0, by_category=by_category)
        names = sorted({record.category for record in test.records})
        found[rate] = with_sum([_outcome(name, calibration.deciding(name), test.of(name)) for name in names])[-1]
    return found


def warn_of_blind(overall: Sequence[Outcome], own: Sequence[Outcome]) -> list[str]:
    """Warnings where the one boundary, or a category's own, tells hardly any good and defective images apart."""
    lines = []
    for rows, boundary, why in (
        (overall, "with one boundary for all", "the scores of the categories differ"),
        (own, "with its own boundary", "see the table of other rates, or train a better detector"),
    ):
        for row in rows:
            if row.category != "all" and row.defective and row.misses >= _BLIND * row.defective:
                lines.append(
                    f"{boundary} {row.misses} of {row.defective} defective images of {row.category} are missed; {why}"
                )
            if row.category != "all" and row.false_alarms > _ALARMING * row.good:
                lines.append(
                    f"{boundary} {row.false_alarms} of {row.good} good images of {row.category} are called defective"
                )
    return lines


def by_kind(held_out: Scores, test: Scores) -> dict[str, dict[str, np.ndarray]]:
    """Scores by category (further good images have none) and kind: `sets the boundary`, `good`, `defective`."""
    return {
        name or FURTHER: {
            "sets the boundary": held_out.of(name).score,
            "good": test.of(name).labelled(0).score,
            "defective": test.of(name).labelled(1).score,
        }
        for name in sorted({record.category for record in (*held_out.records, *test.records)})
    }
