"""A small run with boundaries, an evaluation and predictions of it, and the page over each; made once."""

import pytest

from support.browser import page_of
from support.settings import SMALL
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.report.write import write_report


@pytest.fixture(scope="session")
def runs(tree, tmp_path_factory):
    """The folder of `run` (a training), `evaluated`, `run/calibration` and `predicted`."""
    folder = tmp_path_factory.mktemp("report")
    words = [*SMALL, "trainer.max_epochs=6", f"data.root={tree}", "data.held_out=0.3", f"output_dir={folder}/run"]
    assert run_command("train", [*words, "calibrate=true"]) == 0
    ckpt = f"ckpt_path={folder}/run"
    assert run_command("evaluate", [ckpt, f"output_dir={folder}/evaluated", "trainer=cpu"]) == 0
    photos = [f"input={tree}/cable/test", f"output_dir={folder}/predicted", "device=cpu", "report=true"]
    assert run_command("predict", [ckpt, *photos]) == 0
    return folder


@pytest.fixture(scope="session")
def evaluated(runs):
    """The page over the evaluation."""
    return write_report([runs / "evaluated"], device="cpu").page


@pytest.fixture
def opened(browser):
    """Open a page file in the browser; it is closed at the end, and has raised no error then."""
    stack = []

    def call(path, **options):
        context = page_of(browser, **options)
        page = context.__enter__()
        stack.append(context)
        page.goto(path.as_uri())
        page.wait_for_selector("#cards .card")
        return page

    yield call
    for context in stack:
        context.__exit__(None, None, None)
