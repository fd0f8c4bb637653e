"""What a page shows of one run: plain values, whatever kind of folder they come from."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uniad_lightning.inspection.boundary import Boundary, Calibration

Reader = Callable[[], tuple[np.ndarray, np.ndarray | None]]  # image (H, W, 3) uint8, mask (H, W) bool or None


class ReportedImage(NamedTuple):
    """One image of a run.

    Attributes:
        path: as the run's table has it.
        category: the labelled one; of a prediction the given or found one, empty where it is not known.
        label: 0 good, 1 defective; None where nobody has labelled it.
        defect: kind of defect, `good` for a normal image, empty where it is not known.
        score: image score; None for an image that could not be inspected.
        decision: that in the run's table: `good`, `defective`, `unknown`, or empty.
        found: the category found in the image, empty where it is not known.
        familiar: False where it resembles no category of the training; None where that is not known.
        error: why it could not be inspected, or empty.
        verdict: what a person has said of it (`uniad feedback`): `good`, `defective`, or empty.
    """

    path: str
    category: str
    label: int | None
    defect: str
    score: float | None
    decision: str
    found: str
    familiar: bool | None
    error: str
    verdict: str = ""


class ReportedRun(NamedTuple):
    """One run.

    Attributes:
        folder: the run folder.
        images: in the order of the run's table.
        labelled: whether they have labels: those of a test split have, those of `uniad predict` have not.
        calibration: the boundaries; None without any.
        by_category: whether each category's own boundary decides.
        checkpoint: the detector's file.
        metrics: the content of `metrics.json`, empty without one.
        config: the content of `config.yaml`, the run's settings; empty without one.
        source: the table that the scores are from.
        readers: gives pairs of an image's place in `images` and what decodes it, for the places that are asked for.
        notes: what a reader has to know, each a sentence.
    """

    folder: Path
    images: tuple[ReportedImage, ...]
    labelled: bool
    calibration: Calibration | None
    by_category: bool
    checkpoint: Path | None
    metrics: Mapping[str, Any]
    config: str
    source: Path
    readers: Callable[[frozenset[int]], Iterable[tuple[int, Reader]]]
    notes: tuple[str, ...] = ()

    def deciding(self, category: str) -> Boundary | None:
        """The boundary for an image of `category`; None without a calibration."""
        if self.calibration is None:
            return None
        own = self.calibration.categories.get(category) if self.by_category else None
        return own or self.calibration.overall

    def decision(self, image: ReportedImage) -> str:
        """What the boundary decides now: `good`, `defective`, `unknown`, or empty where nothing can be decided."""
        boundary = self.deciding(image.category)
        if boundary is None or image.score is None:
            return ""
        if not image.score <= boundary.score:
            return "defective"
        return "unknown" if image.familiar is False else "good"

    @property
    def changed(self) -> int:
        """How many decisions of the run's table were others: those of a boundary that has been set anew since."""
        kept = (image for image in self.images if image.decision and image.score is not None)
        return sum((image.decision == "defective") != (self.decision(image) == "defective") for image in kept)
