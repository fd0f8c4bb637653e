"""How many pictures a call of `uniad predict` has judged, and what they were."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass
class Counts:
    """How many pictures were what.

    Attributes:
        good: without defect.
        defective: with one; neither of both for a detector that is not calibrated.
        unfamiliar: looked like no product of the training, good or defective.
        failed: could not be judged; their rows say why.
        judged: all that this call judged, failed ones not among them.
        skipped: those an earlier call had judged.
        seconds: how long it took; of several processes, the slowest.
    """

    good: int = 0
    defective: int = 0
    unfamiliar: int = 0
    failed: int = 0
    judged: int = 0
    skipped: int = 0
    seconds: float = 0.0

    @classmethod
    def together(cls, several: "Sequence[Counts]") -> "Counts":
        """What several processes have counted."""
        total = cls(**{field.name: sum(getattr(one, field.name) for one in several) for field in fields(cls)})
        total.seconds = max((one.seconds for one in several), default=0.0)
        return total

    def line(self, where: Path) -> str:
        """The summary for the terminal."""
        decided = f"{self.good} good, {self.defective} defective" if self.good or self.defective else "not decided"
        parts = [f"{self.judged + self.failed} images: {decided}"]
        parts += [f"{self.unfamiliar} unfamiliar"] if self.unfamiliar else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.skipped} judged before"] if self.skipped else []
        return f"{', '.join(parts)}; {self.judged / max(self.seconds, 1e-9):.1f} images/s; {where}"
