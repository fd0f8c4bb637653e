"""False alarms and misses of boundaries on test images, and which images are familiar."""

import numpy as np
from torch import Tensor

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.inspection.boundary import (
    Boundary,
    Calibration,
    at_rate,
)
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.results.outcomes import Outcome, with_sum


def outcomes(calibration: Calibration, test: Scores) -> tuple[list[Outcome], list[Outcome]]:
    """False alarms and misses on the test images: of the boundary for all categories, and of the categories' own."""
    names = sorted({record.category for record in test.records})

    def outcome(name: str, boundary: Boundary) -> Outcome:
        good, defective = (test.of(name).labelled(label).score for label in (0, 1))
        alarms, misses = (good > boundary.score).sum(), (defective <= boundary.score).sum()
        return Outcome(name, boundary.score, len(good), int(alarms), len(defective), int(misses))

    overall = [outcome(name, calibration.overall) for name in names]
    own = [outcome(name, calibration.categories[name]) for name in names if name in calibration.categories]
    return with_sum(overall), with_sum(own) if len(own) == len(overall) else own


def learn_familiar(known: Tensor, held_out: Tensor, rate: float) -> Familiarity:
    """The mean features `known` (n, C) of train images as what is familiar; its boundary is set on `held_out` ones."""
    measure = Familiarity(references=known.half(), boundary=1.0)  # half precision, as checkpoints store them
    distances = measure.distance(held_out).double().numpy()
    measure.boundary = at_rate(distances, distances, rate).score
    return measure


def by_kind(held_out: Scores, test: Scores) -> dict[str, dict[str, np.ndarray]]:
    """Scores by category (further good images have none) and kind: `held out`, `good`, `defective`."""
    return {
        name or "further": {
            "held out": held_out.of(name).score,
            "good": test.of(name).labelled(0).score,
            "defective": test.of(name).labelled(1).score,
        }
        for name in sorted({record.category for record in (*held_out.records, *test.records)})
    }


def share_unfamiliar(familiarity: Familiarity, test: Scores) -> dict[str, float]:
    """Share of the good and of the defective test images that are called unfamiliar; for both that is a false alarm."""
    shares = {}
    for name, label in (("good", 0), ("defective", 1)):
        descriptor = test.labelled(label).descriptor
        if descriptor is not None and len(descriptor):
            shares[name] = float((familiarity.distance(descriptor) > familiarity.boundary).float().mean())
    return shares
