"""model=memory_bank: one bank for all, that products join and leave, the same in two processes."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from support.checkpoints import weights
from support.settings import FEATURES, UNIAD
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.errors import InputError
from uniad_lightning.training.build import build_saved
from uniad_lightning.training.checkpoint import load_checkpoint

BANK = [*FEATURES, "model=memory_bank", "data.batch_size=4"]


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    """A bank of both products, and its run folder."""
    folder = tmp_path_factory.mktemp("bank") / "run"
    assert run_command("train", [*BANK, f"data.root={tree}", f"output_dir={folder}", "validate_every=1"]) == 0
    return folder


def test_no_image_is_dropped_and_every_patch_has_an_owner(run):
    module, checkpoint = build_saved(str(run / "checkpoints/last.ckpt"))
    assert module.categories == ["bottle", "cable"]
    assert module.bank.patches.shape == (18 * 64, 64)  # 18 images do not divide by 4; the deepest level alone
    assert module.bank.owner.bincount().tolist() == [9 * 64, 9 * 64]
    assert checkpoint["config"]["trainer"]["max_epochs"] == 1
    assert not {"loss", "optimizer", "schedule"} & checkpoint["config"].keys()
    assert module.standardize.fitted


def test_its_map_is_the_distance_to_the_nearest_patch(run, tree):
    detector = Detector.load(run / "checkpoints/last.ckpt")
    module = detector.engine.module
    image = next((tree / "cable/test/good").glob("*.png"))
    tiles = detector.engine.framing.tiles_of(detector._pixels(image), detector.engine.image_size)
    pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float().div(255)
    pixels = (pixels - torch.tensor(module.mean).view(3, 1, 1)) / torch.tensor(module.std).view(3, 1, 1)
    with torch.no_grad():
        features = module.backbone(pixels).double().numpy()[0]  # (C, h, w)
        found = module.anomaly_map({"image": pixels})[0].numpy()
    mean, std = (value.double().numpy()[:, None, None] for value in (module.standardize.mean, module.standardize.std))
    patches = ((features - mean) / std).reshape(len(features), -1).T
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(module.bank.patches.double().numpy())
    expected = nearest.kneighbors(patches)[0].reshape(8, 8)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("coreset", ["null", "0.1"])
def test_two_processes_make_the_same_bank(tree, tmp_path, coreset):
    for name, more in (("one", []), ("two", ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"])):
        words = [*BANK, f"model.coreset={coreset}", f"data.root={tree}", f"output_dir={tmp_path}/{name}", *more]
        done = subprocess.run([UNIAD, "train", *words], capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert torch.equal(one["bank.owner"], two["bank.owner"])
    assert torch.allclose(one["bank.patches"], two["bank.patches"], atol=1e-5)  # batches of other sizes round otherwise


def test_a_coreset_keeps_its_share_and_reweighting_changes_scores_alone(uniad, tree, tmp_path, run):
    words = [*BANK, f"data.root={tree}", "model.coreset=0.1", "model.reweight=true"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/small")
    assert status == 0, err
    module, _ = build_saved(str(tmp_path / "small/checkpoints/last.ckpt"))
    assert len(module.bank.patches) == round(0.1 * 18 * 64)
    image = next((tree / "cable/test").rglob("*.png"))
    weighted = Detector.load(tmp_path / "small/checkpoints/last.ckpt")
    before = weighted.predict(image)
    weighted.engine.module.reweight = False
    after = weighted.predict(image)
    assert np.array_equal(before.scored_map, after.scored_map)
    assert 0 < before.score < after.score


def test_a_product_joins_and_leaves_and_the_others_stay(uniad, tree, tmp_path):
    small = [*BANK, f"data.root={tree}"]
    status, _, err = uniad("train", *small, "data.categories=[bottle]", f"output_dir={tmp_path}/old")
    assert status == 0, err
    old = tmp_path / "old/checkpoints/last.ckpt"
    joined = ["trainer=cpu", "data.num_workers=0", "data.batch_size=4", f"data.root={tree}", f"init_from={old}"]
    status, _, err = uniad("train", *joined, "data.categories=[cable]", f"output_dir={tmp_path}/new")
    assert status == 0, err
    module, checkpoint = build_saved(str(tmp_path / "new/checkpoints/last.ckpt"))
    before = load_checkpoint(str(old))["state_dict"]
    assert module.categories == ["bottle", "cable"]
    assert checkpoint["categories"] == ["bottle", "cable"]
    assert "will forget" not in err
    assert torch.equal(module.bank.patches[: 9 * 64], before["bank.patches"])
    assert torch.equal(module.standardize.mean, before["standardize.mean"])
    with pytest.raises(InputError, match="category=botle: the bank has none of that name"):
        module.remove("botle")
    new = tmp_path / "new/checkpoints/last.ckpt"
    status, _, err = uniad("train", *joined[:-1], f"init_from={new}", f"output_dir={tmp_path}/again")
    assert status == 2
    assert "has all of its categories (bottle, cable); name new ones" in err


def test_a_category_is_forgotten_for_good(uniad, run, tree, tmp_path):
    last = tmp_path / "last.ckpt"
    shutil.copy(run / "checkpoints/last.ckpt", last)
    before = build_saved(str(last))[0].bank.patches
    assert uniad("calibrate", f"ckpt_path={last}", f"good={tree}/cable/test/good", f"output_dir={tmp_path}/c")[0] == 0
    status, out, err = uniad("forget", f"ckpt_path={last}", "category=bottle")
    assert status == 0, err
    assert "the bank holds cable now; set new boundaries with uniad calibrate" in out
    module, checkpoint = build_saved(str(last))
    assert module.categories == checkpoint["categories"] == ["cable"]
    assert torch.equal(module.bank.patches, before[9 * 64 :])
    assert module.bank.owner.tolist() == [0] * (9 * 64)
    assert "calibration" not in checkpoint
    assert uniad("evaluate", f"ckpt_path={last}", f"output_dir={tmp_path}/e")[0] == 0
    assert "bottle" not in (tmp_path / "e/results.csv").read_text()
    status, _, err = uniad("forget", f"ckpt_path={last}", "category=cable")
    assert status == 2
    assert "category=cable: is the only one of the bank" in err


def test_it_is_resumed_when_it_is_finished_and_nothing_changes(uniad, tree, tmp_path, run):
    words = [*BANK, f"data.root={tree}", "validate_every=1", f"ckpt_path={run}/checkpoints/last.ckpt"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    before, after = weights(run), weights(tmp_path / "run")
    assert torch.equal(before["bank.patches"], after["bank.patches"])
    assert (tmp_path / "run/results.csv").read_text() == (run / "results.csv").read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lr=1", "optimizer.lr=1: MemoryBankDetector is fitted in one pass, without gradients; leave it out"),
        ("loss=mse", "loss=mse: MemoryBankDetector is fitted in one pass"),
        (
            "trainer.max_epochs=3",
            "trainer.max_epochs=3, trainer.max_steps=-1: MemoryBankDetector is fitted in one pass",
        ),
        ("model.coreset=2", "model.coreset=2: expected a share of the patches"),
        ("model.coreset=abc", "model.coreset=abc: expected a share of the patches"),
        ("model.coreset_dim=0.5 model.coreset=0.5", "model.coreset_dim=0.5: expected at least 1"),
        ("backbone.window=2", "backbone.window=2: expected an odd number"),
        ("backbone.window=true", "backbone.window=True: expected an odd number"),
        ("model.neighbors=1", "model.neighbors=1: expected a whole number of at least 2"),
        ("model.megabytes=abc", "model.megabytes=abc: expected more than 0"),
        ("model.megabytes=inf", "model.megabytes=inf: expected more than 0"),
        ("model.half=abc", "model.half=abc: expected true or false"),
        ("model.reweight=1", "model.reweight=1: expected true or false"),
        ("+model.foo=3", "model: MemoryBankDetector cannot be built from its keys"),
        ("backbone.trainable=true", "backbone.trainable=true: MemoryBankDetector is fitted in one pass"),
        ("callbacks=best_on_test validate_every=1", "callbacks=best_on_test: one pass has no epochs to choose from"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, said):
    status, _, err = uniad("train", *BANK, f"data.root={tree}", f"output_dir={tmp_path}/run", *override.split())
    assert status == 2
    assert said in err
    assert len([line for line in err.strip().splitlines() if line.startswith("uniad: ") and "warning" not in line]) == 1


def test_the_method_of_init_from_is_kept_or_another_one_refused(uniad, run, tree, tmp_path):
    words = [*BANK, f"data.root={tree}", f"init_from={run}/checkpoints/last.ckpt", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *[w for w in words if w != "model=memory_bank"], "model=padim")
    assert status == 2
    assert "model: is PadimDetector, and init_from=" in err
    assert "is MemoryBankDetector, which the training keeps; leave model=... out" in err


@pytest.mark.slow
def test_a_sweep_over_methods_that_is_called_again_finds_its_runs(uniad, tree, tmp_path):
    words = [
        *FEATURES,
        f"data.root={tree}",
        "trainer.max_epochs=1",
        "model=cnn,memory_bank",
        f"output_dir={tmp_path}/s",
    ]
    status, out, err = uniad("train", "-m", *words)
    assert status == 0, err
    status, out, err = uniad("train", "-m", *words)
    assert status == 0, err
    assert out.count("finished before with the same settings") == 2


@pytest.mark.parametrize("tiles", ["[1,1]", pytest.param("[2,2]", marks=pytest.mark.slow)])
def test_a_weighted_score_is_exported_too(uniad, tree, tmp_path, tiles):
    words = [*BANK, f"data.root={tree}", "model.reweight=true", "model.coreset=0.2", f"data.framing.tiles={tiles}"]
    assert uniad("train", *words, f"output_dir={tmp_path}/run")[0] == 0
    last = tmp_path / "run/checkpoints/last.ckpt"
    status, out, err = uniad("export", f"ckpt_path={last}", f"output_dir={tmp_path}/e")
    assert status == 0, err
    image = next((tree / "cable/test").rglob("*.png"))
    ours, theirs = (Detector.load(path).predict(image).score for path in (last, last.with_suffix(".onnx")))
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_what_it_cannot_be_is_refused(uniad, run, tmp_path):
    last = run / "checkpoints/last.ckpt"
    for command, more, said in (
        ("export", ["precision=int8"], "precision=int8: MemoryBankDetector is exported as fp32"),
        ("train_decoder", [], "MemoryBankDetector reconstructs no features that could be shown"),
    ):
        status, _, err = uniad(command, f"ckpt_path={last}", f"output_dir={tmp_path}/{command}", *more)
        assert status == 2
        assert said in err
