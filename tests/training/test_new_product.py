"""A new product joins a trained model."""

from pathlib import Path

import pytest
import torch

from support.settings import SMALL
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.selection import hold_out, rehearse
from uniad_lightning.errors import InputError
from uniad_lightning.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def known(tree, tmp_path_factory):
    """A model of one of the tree's two products."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("known")
    words = [*SMALL, f"data.root={tree}", "data.categories=[bottle]", "standardize=true", f"output_dir={folder}/run"]
    assert run_command("train", words) == 0
    return folder / "run/checkpoints/last.ckpt"


def start(uniad, known, tree, folder, *words):
    small = [word for word in SMALL if word.startswith(("data.batch", "data.num", "optimizer", "trainer"))]
    return uniad("train", *small, f"init_from={known}", f"data.root={tree}", f"output_dir={folder}", *words)


def test_it_starts_from_the_checkpoints_network_and_rehearses_what_it_knows(uniad, known, tree, tmp_path):
    status, out, err = start(
        uniad, known, tree, tmp_path / "run", "rehearse=3", "trainer.max_epochs=1", "optimizer.lr=0"
    )
    assert status == 0, err
    assert [line for line in err.splitlines() if "warning" in line and "has hardly learned" not in line] == []
    counted = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in out.splitlines() if "hole 1" in line}
    assert counted == {"bottle": "3", "cable": "9"}
    before, after = (load_checkpoint(str(path)) for path in (known, tmp_path / "run/checkpoints/last.ckpt"))
    assert after["categories"] == ["bottle", "cable"]
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name]), name
    assert after["config"]["model"] == before["config"]["model"]
    assert after["config"]["standardize"]


def test_it_learns_and_resumes(uniad, known, tree, tmp_path):
    status, _, err = start(
        uniad, known, tree, tmp_path / "run", "trainer.max_epochs=2", "callbacks.checkpoint.every_n_epochs=1"
    )
    assert status == 0, err
    after = load_checkpoint(str(tmp_path / "run/checkpoints/last.ckpt"))["state_dict"]
    before = load_checkpoint(str(known))["state_dict"]
    assert not torch.equal(after["network.output_proj.weight"], before["network.output_proj.weight"])
    assert torch.equal(after["standardize.mean"], before["standardize.mean"])


@pytest.mark.slow
def test_a_training_that_will_forget_says_so(uniad, known, tree, tmp_path):
    status, _, err = start(uniad, known, tree, tmp_path / "run", "data.categories=[cable]", "trainer.max_epochs=1")
    assert status == 0, err
    assert "no train images of bottle, which init_from knows" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init_from=nowhere.ckpt"], "init_from=nowhere.ckpt: no such file"),
        (["init_from=null", "rehearse=3"], "give init_from"),
        (["rehearse=0"], "rehearse=0: expected a whole number"),
    ],
)
def test_what_cannot_be_is_one_line(uniad, known, tree, tmp_path, words, said):
    status, _, err = start(uniad, known, tree, tmp_path / "run", *words)
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def records(category, count):
    return tuple(Record(Path(f"{category}/train/good/{i:03d}.png"), (), category, "good", 0) for i in range(count))


def test_rehearsal_keeps_new_products_whole():
    splits = Splits(("a", "b"), records("a", 20) + records("b", 5), ())
    kept = rehearse(splits, {"a"}, 4).train
    assert [record.category for record in kept] == ["a"] * 4 + ["b"] * 5
    assert rehearse(splits, {"a"}, None) == splits


def test_held_out_images_stay_so_when_others_join():
    few, many = (Splits(("a",), records("a", count), ()) for count in (100, 300))
    apart = {record.image for record in hold_out(few, 0.2).validation}
    assert 10 <= len(apart) <= 30
    more = hold_out(many, 0.2)
    assert {record.image for record in more.train} & apart == set()
    assert {record.image for record in hold_out(few, 0.2).train} & {record.image for record in more.validation} == set()
    assert len(hold_out(Splits(("a",), records("a", 3), ()), 0.01).validation) == 1
    with pytest.raises(InputError, match="single good train image"):
        hold_out(Splits(("a",), records("a", 1), ()), 0.1)
    with pytest.raises(InputError, match=r"data.held_out=1.0"):
        hold_out(few, 1.0)
