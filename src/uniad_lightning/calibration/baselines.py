"""What is kept of good images, so that later ones can be compared with them."""

from collections.abc import Sequence

from uniad_lightning.calibration.recognition import Recognition
from uniad_lightning.calibration.scores import Scores
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.inspection.baseline import Baseline


def baselines(good: Scores, recognition: Recognition | None, categories: Sequence[str]) -> dict[str, Baseline]:
    """The baseline of each of the detector's `categories`, of `good` images that it was not trained on.

    None of them where the detector cannot tell several categories apart: what it calls one product are then several.
    """
    names = list(map(composed, categories))
    if len(names) == 1:
        return {name: _baseline(good, recognition, name) for name in names if len(good.score)}
    if recognition is None or not recognition.reliable:
        return {}
    own = {name: good.of(name) for name in names}
    return {name: _baseline(scores, recognition, name) for name, scores in own.items() if len(scores.score)}


def _baseline(good: Scores, recognition: Recognition | None, name: str) -> Baseline:
    compared, unfamiliar = (0, 0) if recognition is None else (recognition.compared[name], recognition.unfamiliar[name])
    return Baseline.of(good.score, compared=compared, unfamiliar=unfamiliar)
