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
        defective: with one.
        unknown: below the boundary, but unlike every category of the training. These three are 0 for a detector that is
            not calibrated.
        unfamiliar: unlike every category of the training, whatever the decision.
        failed: could not be inspected; their rows hold the reason.
        temporary: of those that failed, for a reason that may pass: worth another try.
        inspected: all that this call inspected, without failed ones.
        skipped: done by an earlier call.
        failed_before: of those, failed.
        dropped: frames of a camera or stream that were not inspected, since newer ones came.
        passed_over: images in the folders whose suffix is not that of an image, and which were not inspected.
        undelivered: rows that a sink has not taken yet, over all sinks.
        seconds: how long it took; of several processes, the slowest.
    """

    good: int = 0
    defective: int = 0
    unknown: int = 0
    unfamiliar: int = 0
    failed: int = 0
    temporary: int = 0
    inspected: int = 0
    skipped: int = 0
    failed_before: int = 0
    dropped: int = 0
    passed_over: int = 0
    undelivered: int = 0
    seconds: float = 0.0

    def add(self, row: Row) -> None:
        """Count an image by its row."""
        self.good += row["decision"] == "good"
        self.defective += row["decision"] == "defective"
        self.unknown += row["decision"] == "unknown"
        self.unfamiliar += row["familiar"] is False
        self.failed += bool(row["error"])
        self.temporary += row["temporary"]
        self.inspected += not row["error"]

    @property
    def incomplete(self) -> bool:
        """Whether an image of the input was not inspected, by this call or an earlier one, or a row not delivered."""
        return bool(self.failed or self.failed_before or self.passed_over or self.undelivered)

    @classmethod
    def total(cls, parts: "Sequence[Counts]") -> "Counts":
        """The counts of several processes together."""
        total = cls(**{field.name: sum(getattr(part, field.name) for part in parts) for field in fields(cls)})
        total.seconds = max((part.seconds for part in parts), default=0.0)
        return total

    def summary(self, place: Path) -> str:
        """The line for the terminal, whose numbers add up; `place` is where the rows are."""
        undecided = self.inspected - self.good - self.defective - self.unknown
        again = f" ({self.temporary} worth another try: resume=true)" if self.temporary else ""
        kinds = {
            "good": self.good,
            "defective": self.defective,
            "unknown": self.unknown,
            "not decided": undecided,
            f"failed{again}": self.failed,
        }
        total = self.inspected + self.failed
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "none inspected"
        parts = [f"{total} image{'' if total == 1 else 's'}: {listed}"]
        parts += [f"{self.unfamiliar} of them unfamiliar"] if self.unfamiliar else []
        before = f" ({self.failed_before} of them failed)" if self.failed_before else ""
        parts += [f"{self.skipped} more done before{before}"] if self.skipped else []
        parts += [f"{self.dropped} more frames dropped for newer ones"] if self.dropped else []
        parts += [f"{self.passed_over} more passed over"] if self.passed_over else []
        return f"{'; '.join(parts)}; {self.inspected / max(self.seconds, 1e-9):.1f} images/s; {place}"
