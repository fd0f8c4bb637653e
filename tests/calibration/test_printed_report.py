"""What a calibration prints: what decides comes first, and nothing is said twice."""

import pytest

from uniad_lightning.calibration.report import show_boundaries, show_outcomes, show_rates
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.results.outcomes import Outcome

ONE = Boundary(score=3.0, pixel=3.0, spread=1.0, images=40, rate=0.05, low=0.01, high=0.125)
OWN = {name: ONE._replace(score=score, images=20) for name, score in (("gear", 2.0), ("capsule", 4.0))}


def cells(line):
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


@pytest.mark.parametrize(
    ("by_category", "order"), [(True, ["capsule", "gear", "one for all"]), (False, ["one for all", "capsule", "gear"])]
)
def test_the_boundaries_that_decide_come_first(capsys, by_category, order):
    calibration = Calibration("rate=0.05", ONE, OWN, by_category)
    show_boundaries(calibration)
    rows = {cells(line)[0]: cells(line)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert list(rows) == order
    assert rows["one for all"] == ["3.0000", "40", "5.00%", "1.00%", "12.50%"]
    assert rows["gear"][:2] == ["2.0000", "20"]
    overall, own = ([Outcome("gear", 1.0, 8, alarms, 9, misses)] for alarms, misses in ((1, 2), (3, 4)))
    show_outcomes(calibration, overall, own)
    (row,) = (cells(line) for line in capsys.readouterr().out.splitlines() if "gear" in line)
    assert row == ["gear", "8", "9", *(["3", "4", "1", "2"] if by_category else ["1", "2", "3", "4"])]


def test_rates_with_the_same_outcome_are_one_row(capsys):
    alarms = {0.01: 2, 0.02: 2, 0.05: 2, 0.1: 5, 0.2: 5}
    show_rates({rate: Outcome("all", 9 - rate, 16, count, 32, 0) for rate, count in alarms.items()})
    rows = [cells(line) for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == [["0.01 to 0.05", "2", "16", "0", "32"], ["0.1 to 0.2", "5", "16", "0", "32"]]
