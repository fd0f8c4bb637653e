"""An interrupt may come at any line of the code that inspects and writes: no row is lost, and none is there twice."""

import ast
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

import uniad_lightning.prediction
from support.children import begin, status_of
from support.predicting import check_agreement, journal, predict
from support.stand_in import StandIn, part
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sources.opening import open_source

CODE = str(Path(uniad_lightning.prediction.__file__).parent)
DONE, INTERRUPTED = 10, 11
NAMES = [f"{number}.png" for number in range(5)]


@cache
def headers(path):
    """The lines of a file that are headers of `with`."""
    blocks = (node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.With))
    return {line for block in blocks for line in range(block.lineno, block.body[0].lineno)}


class Lines:
    """Counts the lines of the package that the main thread comes to, and interrupts at one of them.

    The header of a `with` counts for nothing: it is come to when the block ends, where Python lets no signal in.
    """

    def __init__(self, interrupted_at=None):
        self.interrupted_at = interrupted_at
        self.count = 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.call)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def call(self, frame, event, _):
        return self.line if frame.f_code.co_filename.startswith(CODE) else None

    def line(self, frame, event, _):
        if event == "line" and frame.f_lineno not in headers(frame.f_code.co_filename):
            self.count += 1
            if self.count == self.interrupted_at:
                signal.raise_signal(signal.SIGINT)
        return self.line


def predict_interrupted(number, images, out, given):
    """Predict with an interrupt at line `number`; the end of the process says whether that ended it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(20)  # one that hangs is ended
    try:
        with Lines(number):
            predict(images, out, **given)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


@pytest.mark.parametrize("step", [41, pytest.param(5, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_line(tmp_path, step):
    for name in NAMES:
        part(tmp_path / "in" / name, defect=(1, 2, 3, 4))
    given = {"batch_size": 2, "workers": 1}
    with Lines() as lines:
        predict(tmp_path / "in", tmp_path / "whole", **given)
    numbers, ends = range(1, lines.count, step), 0
    for number in numbers:
        out = tmp_path / "out" / str(number)
        status = status_of(begin(predict_interrupted, number, tmp_path / "in", out, given))
        assert status in (DONE, INTERRUPTED), number
        ends += status == INTERRUPTED
        written = check_agreement(out) if (out / "predictions.csv").exists() else []
        assert written == NAMES[: len(written)], number
        predict(tmp_path / "in", out, resume=True, **given)
        assert check_agreement(out) == NAMES, number
        assert {row["overlay"] for row in journal(out)} == {f"overlays/{name}.png" for name in NAMES}, number
        assert sorted(path.stem for path in (out / "overlays").iterdir()) == NAMES, number
    assert ends > len(numbers) / 2


def test_a_failure_behind_the_writing_writes_no_row_again(tmp_path):
    """As of a terminal that is closed, where a line about the rows is printed."""
    for name in NAMES:
        part(tmp_path / "in" / name)

    def fails(row):
        if row["path"] == NAMES[3]:
            raise BrokenPipeError

    writer = PredictionWriter(tmp_path / "out", overlays="none", settings={}, seen=fails)
    with writer, pytest.raises(BrokenPipeError):
        predict_all(StandIn(), open_source(str(tmp_path / "in")), writer, batch_size=2, workers=1, show=False)
    assert check_agreement(tmp_path / "out") == NAMES[:4]
    predict(tmp_path / "in", tmp_path / "out", resume=True)
    assert check_agreement(tmp_path / "out") == NAMES
