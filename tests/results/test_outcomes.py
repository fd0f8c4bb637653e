"""What a boundary decides of test images, in tables."""

import csv
from pathlib import Path

import torch

from uniad_lightning.data.records import Record
from uniad_lightning.results.decisions import limits_of, scored
from uniad_lightning.results.outcomes import report_decisions, show_outcomes
from uniad_lightning.training.mistakes import Worst, WorstImages

CALIBRATION = {
    "overall": {"score": 5.0, "pixel": 6.0},
    "categories": {"nut": {"score": 2.0, "pixel": 3.0}},
    "by_category": True,
}
# (category, label, score): of bolts, one false alarm and one miss; of nuts, one miss.
IMAGES = [("bolt", 0, 1.0), ("bolt", 0, 7.0), ("bolt", 1, 4.0), ("bolt", 1, 9.0), ("nut", 0, 2.0), ("nut", 1, 1.5)]
RECORDS = [Record(Path(f"{i}.png"), (), name, "cut", label) for i, (name, label, _) in enumerate(IMAGES)]
SCORES = [score for _, _, score in IMAGES]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_category_has_its_own_boundary_or_that_for_all():
    assert limits_of(CALIBRATION, "nut") == (2.0, 3.0, "own")
    assert limits_of(CALIBRATION, "bolt") == (5.0, 6.0, "one")
    assert limits_of({**CALIBRATION, "by_category": False}, "nut") == (5.0, 6.0, "one")
    assert limits_of({"overall": CALIBRATION["overall"], "products": CALIBRATION["categories"]}, "nut").kind == "one"
    assert limits_of(None, "nut") is None


def test_every_score_and_decision_is_written_in_the_order_of_the_split(tmp_path, capsys):
    outcomes = report_decisions(tmp_path, scored(RECORDS, SCORES, CALIBRATION))
    written = rows(tmp_path / "test_scores.csv")
    assert [row["path"] for row in written] == [f"{i}.png" for i in range(6)]
    assert [float(row["score"]) for row in written] == SCORES
    assert [row["label"][0] + row["decision"][0] for row in written] == ["gg", "gd", "dg", "dd", "gg", "dg"]
    counted = [[row[name] for name in ("kind", "category", "good", "false_alarms", "defective", "misses")]
               for row in rows(tmp_path / "outcomes.csv")]  # fmt: skip
    assert counted == [
        ["one", "bolt", "2", "1", "2", "1"], ["own", "nut", "1", "0", "1", "1"], ["both", "all", "3", "1", "3", "2"]
    ]  # fmt: skip
    show_outcomes(outcomes)
    assert "decisions on the test images" in capsys.readouterr().out


def test_without_a_boundary_there_are_scores_alone(tmp_path):
    assert report_decisions(tmp_path, scored(RECORDS, SCORES, None)) == []
    assert {row["decision"] for row in rows(tmp_path / "test_scores.csv")} == {""}
    assert not (tmp_path / "outcomes.csv").exists()


def worst(calibration, count, order):
    images = scored(RECORDS, SCORES, calibration)
    found = WorstImages(count)
    for place in order:
        found.add([Worst(place, images[place], torch.zeros(1, 1))])
    return [one.place for one in found.ordered()]


def test_the_worst_are_the_lowest_defective_and_the_highest_good_ones_in_any_order():
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        assert worst(None, 2, order) == [5, 2, 1, 4]
        assert worst(None, 9, order) == [5, 2, 3, 1, 4, 0]
        assert worst(None, 0, order) == []


def test_with_a_boundary_misses_and_false_alarms_come_first():
    assert worst(CALIBRATION, 9, range(6)) == [2, 5, 1, 3, 4, 0]
