"""How many images a call of `uniad predict` has inspected, and with which result."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from uniad_lightning.prediction.rows import Row


@dataclass
class Counts:
    """Numbers of images by result.

    Attributes:
        good: without a defect.
        defective: with one. Both are 0 for a detector that is not calibrated.
        unfamiliar: unlike every category of the training, good or defective.
        failed: could not be inspected; their rows hold the reason.
        temporary: of those that failed, for a reason that may pass: worth another try.
        inspected: all that this call inspected, without failed ones.
        skipped: done by an earlier call.
        failed_before: of those, failed.
        passed_over: images in the folders whose suffix is not that of an image, and which were not inspected.
        seconds: how long it took; of several processes, the slowest.
    """

    good: int = 0
    defective: int = 0
    unfamiliar: int = 0
    failed: int = 0
    temporary: int = 0
    inspected: int = 0
    skipped: int = 0
    failed_before: int = 0
    passed_over: int = 0
    seconds: float = 0.0

    def add(self, row: Row) -> None:
        """Count an image by its row."""
        self.good += row["decision"] == "good"
        self.defective += row["decision"] == "defective"
        self.unfamiliar += row["familiar"] is False
        self.failed += bool(row["error"])
        self.temporary += row["temporary"]
        self.inspected += not row["error"]

    @property
    def incomplete(self) -> bool:
        """Whether an image of the whole input was not inspected, by this call or an earlier one."""
        return bool(self.failed or self.failed_before or self.passed_over)

    @classmethod
    def total(cls, parts: "Sequence[Counts]") -> "Counts":
        """The counts of several processes together."""
        total = cls(**{field.name: sum(getattr(part, field.name) for part in parts) for field in fields(cls)})
        total.seconds = max((part.seconds for part in parts), default=0.0)
        return total

    def summary(self, place: Path) -> str:
        """The line for the terminal, whose numbers add up; `place` is where the rows are."""
        total, undecided = self.inspected + self.failed, self.inspected - self.good - self.defective
        parts = [f"{self.good} good, {self.defective} defective"] if self.good or self.defective else []
        parts += [f"{undecided} not decided"] if undecided else []
        again = f" ({self.temporary} worth another try: resume=true)" if self.temporary else ""
        parts += [f"{self.failed} failed{again}"] if self.failed else []
        before = f" ({self.failed_before} of them failed)" if self.failed_before else ""
        results = f"{total} image{'' if total == 1 else 's'}{': ' if parts else ''}{', '.join(parts)}"
        beside = [f"{self.unfamiliar} of them unfamiliar"] if self.unfamiliar else []
        beside += [f"{self.skipped} more done before{before}"] if self.skipped else []
        beside += [f"{self.passed_over} more passed over"] if self.passed_over else []
        return f"{'; '.join([results, *beside])}; {self.inspected / max(self.seconds, 1e-9):.1f} images/s; {place}"
