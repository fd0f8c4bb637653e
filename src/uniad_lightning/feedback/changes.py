"""What the verdicts change, as it is shown before it is taken: decisions before and after, false alarms and misses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.errors import print_stdout
from uniad_lightning.feedback.counting import counted
from uniad_lightning.feedback.reviewed import Reviewed
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.training.build import warn

_HEAD = (
    "path", "verdict", "by", "when", "decision_then", "score_before", "decision_before", "score_after",
    "decision_after",
)  # fmt: skip


class Case(NamedTuple):
    """What a change starts from.

    Attributes:
        cfg: the settings of the command.
        path: the checkpoint's file.
        checkpoint: its content.
        engine: runs it.
        calibration: its boundaries.
        reviewed: the images with a verdict.
        scores: theirs.
        decisions: theirs.
        work: a folder that is removed at the end.
    """

    cfg: DictConfig
    path: str
    checkpoint: dict[str, Any]
    engine: TorchEngine
    calibration: Calibration
    reviewed: list[Reviewed]
    scores: Scores
    decisions: Sequence[str]
    work: Path


class Proposal(NamedTuple):
    """A change that is not taken yet.

    Attributes:
        what: says in a sentence what it does.
        scores: image scores (n,) of the reviewed images after it.
        decisions: decisions after it.
        write: writes it to a folder; returns lines that say what to do with it.
    """

    what: str
    scores: Sequence[float]
    decisions: Sequence[str]
    write: Callable[[Path], list[str]]


class Count(NamedTuple):
    """False alarms and misses by the verdicts, and how many images are called unknown."""

    good: int
    false_alarms: int
    defective: int
    misses: int
    unknown: int

    @classmethod
    def of(cls, verdicts: Sequence[bool], decided: Sequence[str]) -> "Count":
        """`verdicts`: whether each is good. An image that is called unknown is a miss if it is defective."""
        pairs = list(zip(verdicts, decided, strict=True))
        alarms = sum(good and decision == "defective" for good, decision in pairs)
        misses = sum(not good and decision != "defective" for good, decision in pairs)
        unknown = sum(decision == "unknown" for decision in decided)
        return cls(sum(verdicts), alarms, len(verdicts) - sum(verdicts), misses, unknown)

    @property
    def text(self) -> str:
        """Such as `3 false alarms of 20 good, 1 miss of 4 defective; recall 75.0%`."""
        counts = (
            f"{counted(self.false_alarms, 'false alarm')} of {self.good} good, "
            f"{counted(self.misses, 'miss', 'misses')} of {self.defective} defective"
        )
        recall = f"; recall {1 - self.misses / self.defective:.1%}" if self.defective else ""
        return counts + recall + (f"; {self.unknown} called unknown" if self.unknown else "")


def show(case: Case, proposal: Proposal) -> None:
    """Print every reviewed image's decision before and after, those that get worse first, and the counts of both."""
    order = {"worse": 0, "better": 1, "": 2}
    rows = [(_effect(*row), row) for row in zip(case.reviewed, case.decisions, proposal.decisions, strict=True)]
    scores = list(zip(case.scores.score, proposal.scores, strict=True))
    places = sorted(range(len(rows)), key=lambda place: (order[rows[place][0]], rows[place][1][0].entry.path))
    lines: list[Sequence[object] | None] = []
    for place in places:
        effect, (one, before, after) = rows[place]
        old, new = scores[place]
        lines.append([one.entry.path, one.entry.verdict, f"{old:.4g}", before, f"{new:.4g}", after, effect])
    columns = [("image", LEFT), ("verdict", LEFT), ("score\nbefore", RIGHT), ("decision\nbefore", LEFT)]
    columns += [("score\nafter", RIGHT), ("decision\nafter", LEFT), ("", LEFT)]
    print_table("images with a verdict", columns, lines)
    verdicts = [one.good for one in case.reviewed]
    now, then = (Count.of(verdicts, decided) for decided in (case.decisions, proposal.decisions))
    print_stdout(f"before: {now.text}\nafter:  {then.text}")
    if then.misses > now.misses:
        warn(
            f"{then.misses - now.misses} more of the images reviewed as defective would be missed; expect it "
            "of new ones"
        )


def table(case: Case, proposal: Proposal) -> str:
    """The same as a table of CSV, in the order of the histories."""
    rows: list[Sequence[object]] = [_HEAD]
    columns = zip(case.reviewed, case.scores.score, case.decisions, proposal.scores, proposal.decisions, strict=True)
    for (entry, *_), old, before, new, after in columns:
        when = entry.when.isoformat(timespec="milliseconds")
        texts = (entry.path, entry.verdict, entry.by, when, entry.decision)
        rows.append([*texts, f"{old:.9g}", before, f"{new:.9g}", after])
    return csv_text(rows)


def _effect(one: Reviewed, before: str, after: str) -> str:
    """`better` where the decision becomes that of the verdict, `worse` where it was, empty where neither."""
    right = [(decision == "defective") != one.good for decision in (before, after)]
    return "" if right[0] == right[1] else "better" if right[1] else "worse"
