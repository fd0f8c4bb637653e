"""`~` in every path that a user gives: expanded in one place, and one line where that is not possible."""

import os
import pwd
from pathlib import Path

import pytest

from support.paths import SOURCE
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def homeless(monkeypatch):
    """A user id that the system does not know, as in many a container."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_the_users_own_and_anothers_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~") == tmp_path
    assert expand("~/a/b.png") == tmp_path / "a/b.png"
    assert expand(Path("~/a")) == tmp_path / "a"
    assert expand("~root/x") == Path(pwd.getpwnam("root").pw_dir) / "x"
    for plain in ("a/~/b", "a~", "./~x", ".", "/~/x", "caf\udce9.png"):
        assert str(expand(plain)) == str(Path(plain))


def test_a_file_that_is_called_so_is_taken_for_itself(tmp_path, monkeypatch):
    (tmp_path / "~draft.png").touch()
    (tmp_path / "~old").mkdir()
    assert expand("~draft.png", within=tmp_path) == Path("~draft.png")
    assert expand("~old/1.png", within=tmp_path) == Path("~old/1.png")
    with pytest.raises(InputError, match=r"^~draft\.png: no user is called 'draft\.png'; give the whole path, or"):
        expand("~draft.png")
    monkeypatch.chdir(tmp_path)
    assert expand("~draft.png") == Path("~draft.png")


@pytest.mark.parametrize("path", ["~nosuchuser", "~nosuchuser/x", "~a\0b/x", "~\udcff"])
def test_no_such_user(path):
    with pytest.raises(InputError, match="no user is called"):
        expand(path)


@pytest.mark.parametrize("path", ["~", "~/photos"])
def test_no_home(homeless, path):
    with pytest.raises(InputError, match=rf"^{path}: this user has no home folder; set HOME, or give the whole path$"):
        expand(path)


def test_there_is_no_other_place_that_expands():
    assert [path.name for path in SOURCE.rglob("*.py") if "expanduser(" in path.read_text()] == ["user_path.py"]


@pytest.mark.parametrize(
    "words",
    [
        ["predict", 'ckpt_path="~/m.ckpt"', "input=x"],
        ["predict", "ckpt_path=m.ckpt", 'input="~/x"'],
        ["predict", "ckpt_path=m.ckpt", "input=x", 'output_dir="~/out"'],
        ["evaluate", "-m", "ckpt_path=m.ckpt", "seed=0,1", 'output_dir="~/out"'],
        ["evaluate", 'ckpt_path="~/m.ckpt"'],
        ["export", 'ckpt_path="~/m.ckpt"'],
        ["import_official", 'file="~/m"', "output=x.ckpt"],
        ["train", *SMALL, 'data.root="~/x"'],
        ["train", *SMALL, "data.root=x", 'data.framing.ignore="~/x.png"'],
        ["train", *SMALL, "data.root=x", 'backbone.weights="~/x.pth"'],
        ["train", *SMALL, "data.root=x", 'init_from="~/x.ckpt"'],
        ["train", "--config-dir", "~/mine"],
        ["data", "mvtec", "data.root=~/x"],
        ["table", "5c", "~/x"],
        ["cache"],
    ],
    ids=lambda words: " ".join(word for word in words if word not in SMALL),
)
def test_every_command_says_in_one_line_that_there_is_no_home(homeless, command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIAD_CACHE")
    mvtec_tree(tmp_path / "x", train=1)
    status, _, err = command(*words)
    assert status == 2, err
    lines = [line for line in err.splitlines() if not line.startswith("uniad: warning")]
    assert len(lines) == 1, err
    assert "this user has no home folder; set HOME, or give the whole path" in lines[0]
    assert not (tmp_path / "~").exists()


def test_a_training_goes_on_without_the_default_cache(homeless, command, tree, tmp_path):
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", 'data.cache_dir="~/.cache/x"']
    status, _, err = command("train", *words)
    assert status == 0, err
    assert "uniad: warning: features are not cached; data.cache_dir=~/.cache/x: this user has no" in err


@pytest.mark.slow
def test_results_go_to_the_home_folder(command, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    status, _, err = command("train", *SMALL, f"data.root={tree}", 'output_dir="~/run"', "trainer.max_epochs=1")
    assert status == 0, err
    assert (tmp_path / "home/run/metrics.json").is_file()
    assert not os.path.lexists(tmp_path / "~")
    words = ['ckpt_path="~/run/checkpoints/last.ckpt"', f"input={tree}/bottle/test/good", 'output_dir="~/out"']
    status, _, err = command("predict", *words)
    assert status == 0, err
    assert (tmp_path / "home/out/predictions.csv").is_file()


def test_lines_of_a_list(homeless, tmp_path):
    (tmp_path / "list.txt").write_text("~/a.png\n~nosuchuser/b.png\n~c.png\n")
    (tmp_path / "~c.png").write_bytes(b"x")
    items = list(open_source(str(tmp_path / "list.txt")).items)
    assert [item.name for item in items] == ["~/a.png", "~nosuchuser/b.png", "~c.png"]
    for item, message in zip(items, ("no home folder", "no user is called", r"~c\.png: not a"), strict=True):
        with pytest.raises(InputError, match=message):
            item.read()
