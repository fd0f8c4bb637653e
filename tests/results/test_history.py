"""The commands that wrote in an output folder are kept as they were typed, for the page's foot."""

import pytest

from support.settings import QUICK
from uniad_lightning.results.history import commands, current, remember, running, shell_line
from uniad_lightning.results.output_folder import hold
from uniad_lightning.results.run_folder import write_text
from uniad_lightning.results.written_files import MARK


def lines(folder):
    """The commands without their times."""
    return [line.partition(" ")[2] for line in commands(folder / MARK)]


@pytest.mark.slow
def test_a_training_its_new_start_and_what_changes_it_later(tree, tmp_path, uniad):
    folder = tmp_path / "a run"
    words = [*QUICK, f"data.root={tree}", f"output_dir={folder}", "data.held_out=0.2", "calibrate=true"]
    for name, more in (("train", words), ("train", [*words, "overwrite=true"]), ("calibrate", [f"ckpt_path={folder}"])):
        status, _, err = uniad(name, *more)
        assert status == 0, err
    assert uniad("train", *words)[0] == 2  # refused: it has written nothing
    first = shell_line(["uniad", "train", *words])
    assert f"'output_dir={folder}'" in first
    assert lines(folder) == [first, f"{first} overwrite=true", f"uniad calibrate 'ckpt_path={folder}'"]


def test_every_job_of_a_sweep_knows_the_whole_command(tree, tmp_path, uniad):
    words = [*QUICK, f"data.root={tree}", "seed=0,1", "-m", f"hydra.sweep.dir={tmp_path}/sweep"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    jobs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/job.json"))
    assert len(jobs) == 2
    assert [lines(job) for job in jobs] == 2 * [[shell_line(["uniad", "train", *words])]]


def test_any_words_are_kept_and_no_link_is_followed(tmp_path):
    words = ["uniad", "predict", "input=\udcff.png", "output_dir=a\rb\x85c"]
    for name in ("run", "stranger"):
        (tmp_path / name / MARK).mkdir(parents=True)
    (tmp_path / "stranger" / MARK / "commands").symlink_to(tmp_path / "theirs")
    with running(shell_line(words)):
        for name in ("run", "stranger"):
            remember(tmp_path / name / MARK)
    assert lines(tmp_path / "run") == ["uniad predict 'input=\\udcff.png' 'output_dir=a\rb\x85c'"]
    assert not (tmp_path / "theirs").exists()


def test_what_python_calls_is_no_command(tmp_path):
    with hold(tmp_path / "run"):
        write_text(tmp_path / "run/kept.txt", "kept")
    assert lines(tmp_path / "run") == lines(tmp_path / "nowhere") == []


def test_a_line_holds_neither_passwords_nor_line_ends():
    line = shell_line(
        ["uniad", "predict", "input=rtsp://me:s3cret@camera/1", "sink=[https://host/r?key=s3cret,sqlite:a]"]
    )
    assert line == "uniad predict input=rtsp://***@camera/1 'sink=[https://host/r?key=***,sqlite:a]'"
    assert shell_line(["uniad", "name=two\nlines"]) == "uniad 'name=two lines'"
    with running("uniad one"), pytest.raises(KeyError), running("uniad two"):
        raise KeyError
    assert current() == ""
