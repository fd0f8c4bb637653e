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
        temporary: of those that failed, for what may pass: worth another try.
        judged: all that this call judged, failed ones not among them.
        skipped: those an earlier call had judged.
        failed_before: of those, what could not be judged.
        passed_over: pictures in the folders that are none by their suffix, and were not judged.
        seconds: how long it took; of several processes, the slowest.
    """

    good: int = 0
    defective: int = 0
    unfamiliar: int = 0
    failed: int = 0
    temporary: int = 0
    judged: int = 0
    skipped: int = 0
    failed_before: int = 0
    passed_over: int = 0
    seconds: float = 0.0

    @property
    def incomplete(self) -> bool:
        """Whether some picture of the whole input was not judged, be it by an earlier call."""
        return bool(self.failed or self.failed_before or self.passed_over)

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
        again = f" ({self.temporary} worth another try: resume=true)" if self.temporary else ""
        parts += [f"{self.failed} failed{again}"] if self.failed else []
        before = f" ({self.failed_before} of them failed)" if self.failed_before else ""
        parts += [f"{self.skipped} judged before{before}"] if self.skipped else []
        parts += [f"{self.passed_over} passed over"] if self.passed_over else []
        return f"{', '.join(parts)}; {self.judged / max(self.seconds, 1e-9):.1f} images/s; {where}"
