"""An output folder belongs to one run at a time, and nothing that the package has not written is ever removed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.children import CONTEXT
from support.settings import QUICK
from uniad_lightning.errors import InputError
from uniad_lightning.results.output_folder import hold, hold_free
from uniad_lightning.results.run_folder import claim, write_text
from uniad_lightning.results.written_files import MARK, file_stem, written
from uniad_lightning.sweeps.table import Job, show_sweep


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder with what is in them, but for the package's own list and lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and MARK not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    """A run with an evaluation's maps beside it."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run_command("train", [*QUICK, f"data.root={tree}", f"output_dir={folder}", "data.held_out=0.2"]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


FOREIGN = (
    "maps/0.npz",
    "heatmaps/a.png",
    "results.csv",
    "outcomes.csv",
    "config.yaml",
    "notes.txt",
    "photos/a/b/1.png",
)
COMMANDS = ("train", "evaluate", "calibrate", "predict", "export", "panels", "train_decoder")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), list(zip(COMMANDS, FOREIGN, strict=True)))
def test_what_no_run_has_written_is_refused_and_left_alone(uniad, tree, finished, tmp_path, name, file):
    last = finished / "checkpoints" / "last.ckpt"
    given = {
        "train": [*QUICK, f"data.root={tree}"],
        "predict": [f"ckpt_path={last}", f"input={tree}"],
        "panels": [f"ckpt_path={last}", f"decoder={last}"],
    }.get(name, [f"ckpt_path={last}"])
    folder = tmp_path / "out"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("mine")
    status, _, err = uniad(name, *given, f"output_dir={folder}", "overwrite=true")
    assert (status, len(err.splitlines())) == (2, 1), err
    assert f"{folder} holds {Path(file).parts[0]}" in err
    assert contents(folder) == {file: b"mine"}
    assert not (folder / MARK).exists()


@pytest.mark.parametrize("file", FOREIGN)
def test_a_folder_of_others_cannot_be_held(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("mine")
    with pytest.raises(InputError, match="choose another output_dir"), hold(tmp_path):
        pass
    assert contents(tmp_path) == {file: b"mine"}


@pytest.mark.slow
def test_overwrite_removes_the_whole_old_run_and_nothing_else(uniad, tree, run):
    (run / "notes.txt").write_text("mine")
    (run / "checkpoints" / "kept.ckpt").write_text("mine")
    (run / "logs" / "version_0" / "notes.txt").write_text("mine")
    with hold(run):
        write_text(run / "checkpoints" / "epoch=7.ckpt", "a checkpoint of other callbacks")
    old = contents(run)
    words = [*QUICK, f"data.root={tree}", f"output_dir={run}", "overwrite=true"]
    status, _, err = uniad("train", *words, "logger=none", "~callbacks.heatmaps")
    assert status == 0, err
    new = contents(run)
    mine = {"notes.txt", "checkpoints/kept.ckpt", "logs/version_0/notes.txt"}
    assert new.keys() == mine | {
        "checkpoints/last.ckpt",
        "config.yaml",
        "metrics.json",
        "results.csv",
        "test_scores.csv",
    }
    assert all(new[name] == b"mine" for name in mine)
    assert {"logs/version_0/metrics.csv", "heatmaps/bottle.png", "checkpoints/epoch=7.ckpt"} <= old.keys()


@pytest.mark.slow
def test_curves_are_those_of_the_last_run_alone(uniad, tree, run):
    before = (run / "logs" / "version_0" / "metrics.csv").read_bytes()
    status, _, err = uniad("train", *QUICK, f"data.root={tree}", f"output_dir={run}", "overwrite=true", "seed=1")
    assert status == 0, err
    (log,) = run.glob("logs/*/metrics.csv")
    assert log.parent.name == "version_0"
    assert log.read_bytes() != before


@pytest.mark.parametrize("file", ["maps/0.npz", "heatmaps/mine.png", "outcomes.csv"])
def test_a_users_file_in_the_way_within_a_run_folder_is_named(uniad, tree, run, file):
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text("mine")
    before = contents(run)
    status, _, err = uniad("train", *QUICK, f"data.root={tree}", f"output_dir={run}", "overwrite=true")
    assert status == 2
    assert f"{run / file}: is in the way" in err
    assert contents(run) == before


@pytest.mark.slow
def test_evaluate_and_calibrate_in_the_runs_own_folder_leave_its_checkpoints_and_logs(uniad, run):
    last = run / "checkpoints" / "last.ckpt"
    kept = {name: data for name, data in contents(run).items() if name.startswith(("checkpoints", "logs"))}
    assert uniad("evaluate", f"ckpt_path={last}", f"output_dir={run}", "trainer=cpu")[0] == 2
    words = [f"ckpt_path={last}", f"output_dir={run}", "overwrite=true"]
    status, _, err = uniad("evaluate", *words, "trainer=cpu", "save_maps=true")
    assert status == 0, err
    assert kept.items() <= contents(run).items()
    assert (run / "maps" / "0.npz").is_file()
    status, _, err = uniad("calibrate", *words, "device=cpu", "rate=0.3")
    assert status == 0, err
    assert not (run / "maps").exists()
    assert {*kept, "calibration.json", "outcomes.csv", "scores.png"} <= contents(run).keys()


@pytest.mark.slow
def test_what_a_training_starts_from_is_never_removed(uniad, tree, run):
    last = run / "checkpoints" / "last.ckpt"
    words = [*QUICK, f"data.root={tree}", f"output_dir={run}", "overwrite=true"]
    before = contents(run)
    status, _, err = uniad("train", *words, f"init_from={last}")
    assert status == 2
    assert "overwrite=true removes" in err
    assert contents(run) == before
    status, _, err = uniad("train", *words, "trainer.max_epochs=1", f"ckpt_path={last}", "data.held_out=0.2")
    assert status == 0, err  # its own checkpoint: the run goes on in place
    assert len(list(run.glob("logs/*/metrics.csv"))) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("category", ["y" * 255, "a\0b", "../x"])
def test_a_run_is_held_whatever_its_categories_are_called(tmp_path, category):
    (tmp_path / "config.yaml").write_text(f"seed: 0\noutput_dir: {tmp_path}\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"categories": {category: {}}}))
    with hold(tmp_path):
        assert written(tmp_path) == ["config.yaml", "metrics.json"]


def test_a_run_of_version_0_1_0_is_known_resumed_and_overwritten(uniad, tree, run):
    shutil.rmtree(run / MARK)  # which kept no list
    for later in ("test_scores.csv", "mistakes.png"):
        (run / later).unlink()
    (run / "heatmaps" / "mine.txt").write_text("mine")
    words = [*QUICK, f"data.root={tree}", f"output_dir={run}"]
    status, _, err = uniad("train", *words)
    assert status == 2
    assert "already holds a finished run" in err
    status, _, err = uniad("train", *words, "overwrite=true")
    assert status == 2
    assert "heatmaps/mine.txt: is in the way" in err
    (run / "heatmaps" / "mine.txt").rename(run / "mine.txt")
    (run / "metrics.json").unlink()
    last = run / "checkpoints" / "last.ckpt"
    for drawn in (run / "heatmaps").iterdir():
        drawn.unlink()
    status, _, err = uniad("train", *words, f"ckpt_path={last}", "data.held_out=0.2")
    assert status == 0, err
    assert uniad("train", *words, "overwrite=true", "logger=none")[0] == 0
    assert not (run / "logs").exists()
    assert (run / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_folder_of_other_runs_hidden_files_and_the_calls_own_output_are_no_obstacle(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "a" / "sweep" / "job")
    (tmp_path / "a" / "empty" / "too").mkdir(parents=True)
    (tmp_path / "a" / ".gitkeep").touch()
    with hold(tmp_path / "a"):
        write_text(tmp_path / "a" / "config.yaml", "x")
    assert written(tmp_path / "a") == ["config.yaml"]
    code = (
        "from pathlib import Path; from uniad_lightning.results.output_folder import hold\nwith hold(Path('b')): pass"
    )
    (tmp_path / "b").mkdir()
    with (tmp_path / "b" / "out.log").open("w") as out:
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=out, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake", ["data.root=nowhere", "+trainer.limit_train_batches=0.01", "data.categories=[nut]", "damaged"]
)
def test_a_mistake_loses_nothing_of_the_run_that_was_to_be_overwritten(uniad, tree, run, tmp_path, mistake):
    before, root = contents(run), tree
    if mistake == "damaged":
        root = shutil.copytree(tree, tmp_path / "damaged")
        next((root / "bottle/test/good").iterdir()).write_bytes(b"no image")
    words = [f"data.root={root}", f"output_dir={run}", "overwrite=true"]
    given = [] if mistake == "damaged" else [mistake]
    status, _, err = uniad("train", *QUICK, *words, *given)
    assert (status, contents(run)) == (2, before), err
    shutil.copy(run / "checkpoints/last.ckpt", tmp_path / "last.ckpt")
    given = [] if mistake == "+trainer.limit_train_batches=0.01" else given
    status, _, err = uniad("evaluate", f"ckpt_path={tmp_path / 'last.ckpt'}", "trainer=cpu", *words, *given)
    assert (status, contents(run)) == ((2, before) if given or mistake == "damaged" else (0, contents(run))), err


def test_a_folder_in_which_nothing_was_written_is_left_as_it_was(tmp_path):
    with hold(tmp_path):
        assert (tmp_path / MARK).is_dir()
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_command_are_not_removed_without_overwrite(tmp_path):
    with hold(tmp_path):
        write_text(tmp_path / "decoder.ckpt", "x")
        with pytest.raises(InputError, match="already holds decoder.ckpt of another command"):
            claim(tmp_path, overwrite=False)
        claim(tmp_path, overwrite=True)
    assert contents(tmp_path) == {}


def test_a_list_that_leads_out_of_the_folder_removes_nothing_there(tmp_path):
    (tmp_path / "mine").touch()
    with hold(tmp_path / "run"):
        (tmp_path / "run" / MARK / "written").write_text(f'"../mine"\n{json.dumps(str(tmp_path / "mine"))}\n"torn')
        claim(tmp_path / "run", overwrite=True)
    assert (tmp_path / "mine").exists()


def _hold(folder: Path, free: bool, pipe) -> None:
    with (hold_free if free else hold)(folder) as chosen:
        pipe.send(str(chosen or folder))
        pipe.recv()


@pytest.fixture
def holder():
    """Another process that holds a folder, and the folder."""
    begun = []

    def start(folder: Path, *, free=False):
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_hold, args=(folder, free, there), daemon=True)
        process.start()
        begun.append((process, here))
        return process, Path(here.recv())

    yield start
    for process, here in begun:
        if process.is_alive():
            here.send(None)
        process.join(30)


def test_a_folder_is_held_by_one_run_until_its_process_has_ended(holder, tmp_path):
    process, _ = holder(tmp_path / "run")
    with pytest.raises(InputError, match="another run writes there"), hold(tmp_path / "run"):
        pass
    process.kill()
    process.join(30)
    with hold(tmp_path / "run"), hold(tmp_path / "run"):  # the second by a function that another one calls
        pass


def test_calls_without_a_folder_in_the_same_second_get_one_each(holder, tmp_path):
    default = tmp_path / "2026-01-01_00-00-00"
    assert [holder(default, free=True)[1].name[19:] for _ in range(3)] == ["", "-2", "-3"]
    with hold_free(default) as folder:
        assert folder.name[19:] == "-4"
        write_text(folder / "config.yaml", "x")
    with hold_free(default) as folder:  # nobody holds the fourth any more, but it has been written to
        assert folder.name[19:] == "-5"
    with hold_free(default) as folder:  # in the fifth nothing was written
        assert folder.name[19:] == "-5"


@pytest.mark.slow
def test_trainings_begun_in_the_same_second_have_a_folder_each_also_of_two_processes(tree, tmp_path):
    own = tmp_path / "own" / "experiment" / "same_second.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\noutput_dir: runs/train/2026-01-01_00-00-00\n")
    words = [
        sys.executable,
        "-m",
        "uniad_lightning.command_line.cli",
        "train",
        "--config-dir=own",
        "experiment=same_second",
        *QUICK,
    ]
    words += [f"data.root={tree}", "callbacks.heatmaps.per_category=1"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    with hold(tmp_path / "runs" / "train" / "2026-01-01_00-00-00"):
        write_text(tmp_path / "runs" / "train" / "2026-01-01_00-00-00" / "config.yaml", "of a third one")
    processes = [
        subprocess.Popen([*words, *more], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for more in ([], two)
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err.decode()
    first, *folders = sorted((tmp_path / "runs" / "train").iterdir())
    assert contents(first).keys() == {"config.yaml"}
    assert [folder.name[19:] for folder in folders] == ["-2", "-3"]
    for folder in folders:
        assert {"metrics.json", "checkpoints/last.ckpt", "heatmaps/bottle.png"} <= contents(folder).keys()
        assert f"output_dir: {folder}" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["sweep.csv", "sweep.png"])
def test_a_sweeps_table_does_not_replace_a_users(capsys, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="is in the way"):
        show_sweep(tmp_path, [Job(tmp_path / "a", {"seed": "0"}, failed=True)])
    assert contents(tmp_path) == {name: b"mine"}
    assert "failed" in capsys.readouterr().out
    (tmp_path / name).unlink()
    for _ in range(2):
        show_sweep(tmp_path, [Job(tmp_path / "a", {"seed": "0"}, failed=True)])
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_a_long_name_becomes_a_files_and_stays_one_of_its_own(tmp_path):
    names = ["plate", "[plate]", "ü" * 120, "ü" * 120 + "x", "y" * 255, "y" * 254 + "z"]
    stems = [file_stem(name) for name in names]
    assert stems[:2] == names[:2]
    assert len(set(stems)) == len(names)
    for stem in stems:
        (tmp_path / f"{stem}.png").touch()


def test_what_a_killed_run_has_left_unfinished_is_gone_once_the_folder_is_held_again(tmp_path):
    run, ended = tmp_path / "run", subprocess.Popen(["true"])
    ended.wait()
    with hold(run):
        write_text(run / "checkpoints/last.ckpt", "whole")
    left = run / f"checkpoints/.last.ckpt.{ended.pid}.tmp"
    users = run / f"checkpoints/.mine.{ended.pid}.tmp"
    for path in (left, users):
        path.write_text("half")
    with hold(run):
        assert not left.exists()
    assert users.read_text() == "half"
