"""Figures are written whole: what ends the drawing leaves the picture that was there."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from uniad_lightning.calibration.report import draw_scores
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.paper.comparison import Cell, Comparison, Line, Number
from uniad_lightning.paper.plots import draw_bars
from uniad_lightning.sweeps.search_plot import Tried, draw_search
from uniad_lightning.sweeps.table import Setting, draw_sweep


def scores(path):
    edge = Boundary(*[1.0] * len(Boundary._fields))
    kinds = {"sets the boundary": np.ones(2), "good": np.ones(2), "defective": np.ones(2)}
    draw_scores(path, Calibration("rate=0.1", edge, {"bolt": edge}), {"bolt": kinds})


def bars(path):
    line = Line(("bolt",), (Cell(Number(90.0, None, 1), 91.0),))
    draw_bars(path, Comparison("title", ("category",), ("detection",), (), (line,), ("bolt",)))


def sweep(path):
    numbers = {"image_auroc": [0.5], "pixel_auroc": [0.5]}
    draw_sweep([Setting({"seed": str(seed)}, numbers, 1) for seed in range(2)], path)


def search(path):
    tried = [Tried(number, float(number), {"lr": number}) for number in range(2)]
    draw_search(tried, tried[-1], objective="image_auroc", log=[], path=path)


@pytest.mark.parametrize("draw", [scores, bars, sweep, search])
def test_a_drawing_that_is_interrupted_leaves_the_old_picture(draw, tmp_path, monkeypatch):
    draw(tmp_path / "picture.png")
    before = (tmp_path / "picture.png").read_bytes()

    def interrupted(figure, file, **options):
        with open(file, "wb") as opened:
            opened.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
