"""A user's mistake: one line on stderr that names it and the remedy, exit status 2, and nothing lost."""

import re
import shutil
import subprocess

import pytest
import torch
from PIL import Image

from support.settings import SMALL, UNIAD


@pytest.fixture
def expect_refusal(uniad, tmp_path):
    """Runs `uniad train` and demands status 2 and one line with all of `words`."""

    def call(overrides, *words, command="train"):
        settings = SMALL if command == "train" else []
        status, _, err = uniad(command, *settings, f"output_dir={tmp_path}/run", *overrides)
        # Bars and warnings are no error lines.
        lines = [line for line in err.splitlines() if line and not line.startswith(("uniad: warning", "\r"))]
        lines = [line for line in lines if not re.match(r"(train|evaluate|features):", line)]
        assert status == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        for word in words:
            assert str(word) in lines[0]
        assert not (tmp_path / "run" / "metrics.json").exists()
        return lines[0]

    return call


def test_no_data_root(expect_refusal):
    expect_refusal([], "data.root", "needs a value")


def test_missing_data_root(expect_refusal, tmp_path):
    expect_refusal([f"data.root={tmp_path}/absent"], "absent", "data.root")


def test_root_without_categories(expect_refusal, tmp_path):
    (tmp_path / "empty").mkdir()
    expect_refusal([f"data.root={tmp_path}/empty"], "empty", "train/good")


def test_category_without_train_good(expect_refusal, copy):
    shutil.rmtree(copy / "cable" / "train" / "good")
    expect_refusal([f"data.root={copy}"], "cable", "train/good")


def test_defect_image_without_mask(expect_refusal, copy):
    (copy / "cable" / "ground_truth" / "hole" / "000_mask.png").unlink()
    expect_refusal([f"data.root={copy}"], copy / "cable" / "test" / "hole" / "000.png", "mask")


def test_mask_without_image(expect_refusal, copy):
    (copy / "cable" / "test" / "scratch" / "001.png").unlink()
    expect_refusal([f"data.root={copy}"], copy / "cable" / "ground_truth" / "scratch" / "001_mask.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_mask_of_another_size(expect_refusal, copy, workers):
    Image.new("L", (10, 10), 255).save(copy / "cable" / "ground_truth" / "hole" / "000_mask.png")
    expect_refusal(
        [f"data.root={copy}", f"data.num_workers={workers}", "trainer.max_epochs=1"], "000_mask.png", "10", "80"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image(expect_refusal, copy, workers):
    path = copy / "bottle" / "train" / "good" / "000.png"
    path.write_bytes(path.read_bytes()[:200])
    expect_refusal([f"data.root={copy}", f"data.num_workers={workers}"], path)


def test_image_smaller_than_the_pooling_window(expect_refusal, tree):
    expect_refusal([f"data.root={tree}", "data.image_size=12"], "data.image_size", "16")


def test_image_size_that_the_patches_do_not_divide(expect_refusal, tree):
    overrides = [f"data.root={tree}", "backbone=dinov2_small", "backbone.weights=random"]
    expect_refusal(overrides, "data.image_size=64", "patches of 14x14", "56 or 70")


def test_misspelt_category(expect_refusal, tree):
    expect_refusal([f"data.root={tree}", "data.categories=[botle]"], "botle", "bottle")


@pytest.mark.parametrize(("size", "said"), [(4, "odd"), (17, "largest legal square window is 7"), ("[3,2]", "width 2")])
def test_even_or_too_large_neighbor_size(expect_refusal, tree, size, said):
    expect_refusal([f"data.root={tree}", f"model.neighbor_size={size}"], "model.neighbor_size", said)


@pytest.mark.slow
def test_batch_that_the_processes_do_not_divide(tree, tmp_path):
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=5"]
    done = subprocess.run(
        [UNIAD, "train", *SMALL, *overrides, f"data.root={tree}", f"output_dir={tmp_path}/run"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "data.batch_size=5 cannot be divided by the 2 processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.hiden_dim=3", ("model.hiden_dim", "Did you mean 'model.hidden_dim'")),
        ("bakbone=tiny", ("bakbone", "Did you mean 'backbone'")),
        ("backbone=tinny", ("backbone=tinny", "Did you mean 'tiny'")),
        ("experiment=dmeo", ("experiment=dmeo", "Did you mean 'demo'")),
        ("model.hidden_dim=many", ("model", "many")),
        ("model.hidden_dim=", ("hidden_dim",)),
        ("model.hidden_dim=0", ("model.hidden_dim=0",)),
        ("model.masked=[a,b,c]", ("model.masked",)),
        ("model.dropout=x", ("model",)),
        ("trainer.accelerator=abacus", ("abacus",)),
        ("trainer.accelerator=gpu", ("trainer",)),
        ("trainer.max_epochs=0", ("trainer.max_epochs=0",)),
        ("data.batch_size=0", ("data.batch_size=0",)),
        ("data.eval_batch_size=many", ("data.eval_batch_size=many",)),
        ("optimizer.lr=-1", ("optimizer",)),
        ("data.categories=bottle", ("data.categories", "list")),
        ("seed=x (1)", ("seed=x (1)", "quote")),
    ],
)
def test_unknown_keys_options_and_values(expect_refusal, tree, override, words):
    expect_refusal([f"data.root={tree}", override], *words)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = subprocess.run(
        [UNIAD, "train", *SMALL, "trainer.max_epochs=1", f"data.root={tree}", f"output_dir={folder}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_a_finished_run_is_never_written_over_silently(uniad, tree, finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={finished}")
    assert status == 2
    assert len([line for line in err.splitlines() if "warning" not in line]) == 1
    assert "already holds a finished run" in err
    assert "overwrite=true" in err
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_an_unfinished_run_is_not_written_over_either(uniad, tree, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "unfinished")
    (copy / "metrics.json").unlink()
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={copy}")
    assert status == 2
    assert f"uniad train resume={copy}, choose" in err
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={copy}", "overwrite=true")
    assert status == 0, err


def test_checkpoint_of_another_shape_or_backbone(expect_refusal, tree, finished):
    ckpt = f"ckpt_path={finished}/checkpoints/last.ckpt"
    once = [f"data.root={tree}", ckpt, "trainer.max_epochs=1"]
    expect_refusal([*once, "model.hidden_dim=64"], "model.hidden_dim=32", "model.hidden_dim=64")
    expect_refusal([*once, "backbone=resnet18", "backbone.weights=random"], "backbone.", "resume with")
    expect_refusal([ckpt, "data.image_size=32"], "data.image_size=32", "64", command="evaluate")


def test_missing_corrupt_or_foreign_checkpoint(expect_refusal, tree, finished, tmp_path):
    whole = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    changed = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    changed["state_dict"].pop("network.output_proj.bias")
    torch.save(changed, tmp_path / "changed.ckpt")
    for name, said in (
        ("absent.ckpt", "no such file"),
        ("half.ckpt", "cannot be read"),
        ("foreign.ckpt", "not a checkpoint of uniad-lightning"),
        ("changed.ckpt", "network.output_proj.bias"),
    ):
        expect_refusal([f"ckpt_path={tmp_path / name}"], name, said, command="evaluate")
    expect_refusal([f"data.root={tree}", f"ckpt_path={tmp_path}/half.ckpt"], "half.ckpt")
    resumed = [f"data.root={tree}", f"ckpt_path={tmp_path}/changed.ckpt", "trainer.max_epochs=1"]
    expect_refusal(resumed, "changed.ckpt", "network.output_proj.bias")


def test_a_resumed_run_keeps_its_settings(expect_refusal, tree, finished):
    resumed = [f"data.root={tree}", f"ckpt_path={finished}/checkpoints/last.ckpt", "trainer.max_epochs=1"]
    expect_refusal([*resumed, "optimizer.lr=0.5"], "optimizer.lr=0.001", "optimizer.lr=0.5")
    expect_refusal([*resumed, "schedule=cosine"], "schedule.")


def test_a_diverging_training_says_so(expect_refusal, tree):
    expect_refusal([f"data.root={tree}", "optimizer.lr=1e30"], "diverged", "optimizer.lr")


def test_a_file_where_a_folder_should_be(expect_refusal, tree, tmp_path):
    (tmp_path / "run").write_text("not a folder")
    expect_refusal([f"data.root={tree}"], tmp_path / "run")


def test_a_sweep_over_several_processes_is_refused(uniad, tree, tmp_path):
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}", "-m", "trainer.devices=2", "seed=0,1"
    )
    assert status == 1
    assert "each process would start the sweep again" in err


def test_best_on_test_needs_validation(expect_refusal, tree):
    expect_refusal([f"data.root={tree}", "callbacks=best_on_test"], "validate_every")


def test_unknown_command():
    done = subprocess.run([UNIAD, "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Did you mean 'train'" in done.stderr
