"""Tables in the terminal, at its width and without columns that say nothing."""

import pytest
from matplotlib.figure import Figure

from uniad_lightning.metrics.anomaly_metrics import Evaluation, Row, mean_row
from uniad_lightning.results.axes import note_if_equal, tick_values
from uniad_lightning.results.run_folder import COLUMNS
from uniad_lightning.results.tables import show_evaluation
from uniad_lightning.sweeps import table
from uniad_lightning.sweeps.table import Setting, show_sweep

NAN = float("nan")


def evaluation(pixel):
    rows = {name: Row(32, 0.954, 0.9, 0.87, *[pixel] * 4) for name in ("magnetic_tile", "a_rather_long_name_of_a_part")}
    mean, over = mean_row(rows.values())
    return Evaluation(rows, mean, over, mean, (), {})


def test_all_numbers_of_an_evaluation_stay_whole_at_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    show_evaluation(evaluation(0.97))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("97.00") == 4 * 4
    assert out.count("95.40") == 4
    assert "magnetic_tile" in out


def test_metrics_that_no_row_defines_are_left_out_with_the_reason(capsys):
    show_evaluation(evaluation(NAN))
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "no test image has a mask of its defect, so no pixel_auroc, pixel_ap, pixel_f1max, aupro" in out
    assert "mean over fewer" not in out
    assert "95.40" in out


@pytest.mark.parametrize("pixel", [[0.9, 0.95], []])
def test_a_sweep_at_80_columns(monkeypatch, capsys, tmp_path, pixel):
    numbers = {name: [0.95, 0.96] if name.startswith("image") else pixel for name in COLUMNS}
    settings = [Setting({"model.neighbor_size": value}, numbers, 2) for value in "135"]
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(table, "gather", lambda jobs: settings)
    show_sweep(tmp_path, [])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line and "so no" not in line) <= 80
    assert ("no pixel_auroc" in out) == (not pixel)
    assert out.count("95.50") == 3 * 3
    assert (tmp_path / "sweep.png").is_file()


def test_equal_values_are_not_stretched_over_the_height_and_said_to_be_equal():
    for values, equal in (([97.121, 97.1213], True), ([97.1, 97.2], False), ([97.1], False)):
        axes = Figure().subplots()
        axes.plot(values)
        note_if_equal(axes, values, digits=2)
        low, high = axes.get_ylim()
        assert ([text.get_text() for text in axes.texts] == ["all values are 97.12"]) == equal
        assert (high - low == pytest.approx(2, abs=1e-3)) == equal


def test_the_values_that_were_tried_are_the_ticks():
    axes = Figure().subplots()
    axes.plot([1, 5, 3], [0, 1, 2])
    tick_values(axes, [1.0, 5.0, 3.0])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3", "5"]
