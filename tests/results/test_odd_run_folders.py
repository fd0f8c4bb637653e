"""A run folder of a stranger, or damaged: one line for what is wrong in it, and nothing outside is touched."""

import json

import pytest

from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.paper.gathering import find_runs
from uniad_lightning.results.run_folder import best_checkpoint, read_metrics
from uniad_lightning.results.written_files import MARK, mark, remove_written
from uniad_lightning.training.saved_config import saved_config


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (folder / "config.yaml").write_text("data:\n  root: x\n")
    return folder


CONTENTS = [b"[]", b"3", b'"text"', b"null", b"{", b"", b"\xff\xfe", b"[" * 100_000, b'{"mean": 3}', b'{"pooled": []}',
            b'{"categories": "x"}']  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS)
def test_metrics_that_are_none_are_one_line(run, content):
    (run / "metrics.json").write_bytes(content)
    for read in (lambda: read_metrics(run), lambda: Detector.load(run), lambda: find_runs([run])):
        with pytest.raises(InputError, match=r"run/metrics\.json: .*evaluate the run again") as refused:
            read()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [None, 3, "", ".", "..", "a/b", "../../other", "/etc/passwd", ["last"]])
def test_a_checkpoint_elsewhere_is_not_taken(run, name):
    (run / "metrics.json").write_text(json.dumps({"checkpoint": name}))
    with pytest.raises(InputError, match=r"metrics\.json: checkpoint is .*expected a name such as 'last'"):
        best_checkpoint(run)


@pytest.mark.parametrize(
    "content",
    [b"- a\n- b\n", b"a: [", "name: grün".encode("latin-1"), b"a: &a [*a]", b"a: " + b"[" * 500,
     b"a: !!python/object/apply:os.system [x]", b"a: 1\na: 2\n", b"\0"],
)  # fmt: skip
def test_a_configuration_that_is_none_is_one_line(run, content):
    (run / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"run/config\.yaml") as refused:
        saved_config(run / "config.yaml")
    assert "\n" not in str(refused.value)


def test_a_link_in_a_folder_leads_no_removal_out_of_it(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("x")
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "own.txt").write_text("x")
    mark(folder, ["link/precious.txt", "../outside/precious.txt", str(outside / "precious.txt"), "own.txt"])
    remove_written(folder, stays=lambda name: name.startswith(MARK))
    assert (outside / "precious.txt").exists()
    assert not (folder / "own.txt").exists()
