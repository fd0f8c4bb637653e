"""`data.white_level` from a training on 12-bit images to all that is done with its checkpoint."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.settings import SMALL, UNIAD
from support.trees import mvtec_tree
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.deep_images import CLIPPED, DARK
from uniad_lightning.training.checkpoint import load_checkpoint

SAID = "train images of more than 8 bits hold at most"


@pytest.fixture(autouse=True)
def _unsaid() -> None:
    CLIPPED.reset()
    DARK.reset()


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> tuple[Path, Path]:
    """The same grey images twice: of 12 bits in files of 16, and the 8 bits that they are at a white level of 4095."""
    deep = mvtec_tree(tmp_path_factory.mktemp("deep"), train=6, size=(40, 36))
    plain = shutil.copytree(deep, tmp_path_factory.mktemp("plain") / "tree")
    for path in [path for path in deep.rglob("*.png") if "ground_truth" not in path.parts]:
        values = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16 + 7
        Image.fromarray(values).save(path)
        Image.fromarray(np.rint(values * (255 / 4095)).astype(np.uint8)).save(plain / path.relative_to(deep))
    return deep, plain


def settings(root: Path, folder: Path, *further: str) -> list[str]:
    return [*SMALL, f"data.root={root}", f"output_dir={folder}", *further]


@pytest.fixture(scope="module")
def trained(trees, tmp_path_factory) -> tuple[Path, Path]:
    """Run folders of a training on each of the trees."""
    runs = tuple(tmp_path_factory.mktemp("runs") / name for name in ("deep", "plain"))
    for root, run in zip(trees, runs, strict=True):
        assert run_command("train", settings(root, run)) == 0
    return runs


def checkpoint(run: Path) -> Path:
    return run / "checkpoints/last.ckpt"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(str(checkpoint(run)))["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    theirs = weights(other)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0)


def test_twelve_bits_train_as_the_eight_bits_they_are(trained):
    deep, plain = trained
    assert_same_weights(deep, plain)
    assert (deep / "results.csv").read_text() == (plain / "results.csv").read_text()
    assert load_checkpoint(str(checkpoint(deep)))["config"]["data"]["white_level"] == 4095
    assert load_checkpoint(str(checkpoint(plain)))["config"]["data"]["white_level"] == "auto"


@pytest.mark.slow
def test_the_level_is_stated_at_the_start_and_can_be_given(trees, uniad, tmp_path):
    status, out, err = uniad("train", *settings(trees[0], tmp_path / "auto", "trainer=smoke"))
    assert status == 0, err
    assert out.count(SAID) == 1
    assert "white is 4095 (data.white_level=4095" in out
    status, out, err = uniad("train", *settings(trees[0], tmp_path / "given", "trainer=smoke", "data.white_level=1023"))
    assert status == 0, err
    assert SAID not in out
    assert load_checkpoint(str(checkpoint(tmp_path / "given")))["config"]["data"]["white_level"] == 1023
    assert err.count("but white is 1023") == 1
    status, _, err = uniad("train", *settings(trees[0], tmp_path / "none", "data.white_level=-5"))
    assert status == 2
    assert "data.white_level=-5: expected auto" in err


def test_a_detector_sees_both_alike_and_warns_above(trees, trained, capfd):
    deep, plain = (Detector.load(checkpoint(run), device="cpu") for run in trained)
    assert (deep.white_level, plain.white_level) == (4095, 65535)
    name = "bottle/test/scratch/000.png"
    score = plain.predict(trees[1] / name).score
    values = np.asarray(Image.open(trees[0] / name))
    for image in (trees[0] / name, values, Image.open(trees[0] / name), torch.from_numpy(values.astype(np.int32))):
        if isinstance(image, torch.Tensor):
            image = image.to(torch.uint16)
        assert deep.predict(image).score == score
    assert "white is" not in capfd.readouterr().err
    deep.predict(np.full((40, 36), 4096, dtype=np.uint16))
    assert "values up to 4096, but white is 4095" in capfd.readouterr().err


@pytest.mark.slow
def test_predict_evaluate_and_calibrate_take_the_checkpoints_level(trees, trained, uniad, tmp_path):
    scores = []
    for root, run in zip(trees, trained, strict=True):
        copy = tmp_path / run.name / "last.ckpt"
        copy.parent.mkdir()
        shutil.copy(checkpoint(run), copy)
        out = tmp_path / run.name
        words = [f"ckpt_path={copy}", f"output_dir={out}/judged", f"input={root}/bottle/test"]
        assert uniad("predict", *words)[0] == 0
        rows = [json.loads(line) for line in (out / "judged/predictions.jsonl").read_text().splitlines()]
        # Another set of data, as a source of its own, is looked at in the same way.
        evaluated = [f"ckpt_path={copy}", f"output_dir={out}/evaluated", "data=mvtec", f"data.root={root}"]
        status, told, err = uniad("evaluate", *evaluated, "data.image_size=64")
        assert status == 0, err
        assert SAID not in told
        assert uniad("calibrate", f"ckpt_path={copy}", f"output_dir={out}/c", "by=f1")[0] == 0
        boundary = load_checkpoint(str(copy))["calibration"]["overall"]["score"]
        scores.append([*(row["score"] for row in rows), boundary, (out / "evaluated/results.csv").read_text()])
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_training_without_deep_images_says_so_of_the_first_and_can_be_told(trees, trained, uniad, tmp_path):
    deep, plain = (root / "bottle/test" for root in trees)
    words = [f"ckpt_path={checkpoint(trained[1])}", "device=cpu"]
    table = {}
    for name, given in {
        "plain": [f"input={plain}"],
        "told": [f"input={deep}", "white_level=4095"],
        "dark": [f"input={deep}"],
    }.items():
        status, _, err = uniad("predict", *words, *given, f"output_dir={tmp_path / name}")
        assert status == 0
        assert err.count("white is 65535, so it is taken as dark") == (name == "dark")
        rows = (tmp_path / name / "predictions.jsonl").read_text().splitlines()
        table[name] = [json.loads(row)["score"] for row in rows]
    assert table["plain"] == table["told"] != table["dark"]
    own = [f"ckpt_path={checkpoint(trained[1])}", "trainer=cpu", f"data.root={trees[0]}", "data.white_level=4095"]
    status, _, err = uniad("evaluate", *own, f"output_dir={tmp_path / 'evaluated'}")
    assert status == 0
    assert "taken as dark" not in err
    assert (tmp_path / "evaluated/results.csv").read_text() == (trained[1] / "results.csv").read_text()
    other = [f"ckpt_path={checkpoint(trained[0])}", "trainer=cpu", "data.white_level=1023"]
    status, _, err = uniad("evaluate", *other, f"output_dir={tmp_path / 'other'}")
    assert status == 2
    assert "data.white_level=1023, but the checkpoint was trained at 4095; leave it out" in err


@pytest.mark.slow
def test_an_exported_file_says_and_takes_the_level(trees, trained, uniad, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    words = [f"ckpt_path={checkpoint(trained[0])}", f"output={tmp_path}/d.onnx", f"output_dir={tmp_path}"]
    status, _, err = uniad("export", *words)
    assert status == 0, err
    detector = Detector.load(tmp_path / "d.onnx", device="cpu")
    assert detector.white_level == detector.engine.about["white_level"] == 4095
    name = "bottle/test/scratch/000.png"
    expected = Detector.load(checkpoint(trained[0]), device="cpu").predict(trees[0] / name).score
    assert detector.predict(trees[0] / name).score == pytest.approx(expected, abs=1e-4)


def test_a_checkpoint_of_before_divides_by_all_of_sixteen_bits(trees, trained, uniad, tmp_path):
    old = torch.load(checkpoint(trained[0]), weights_only=True)
    del old["config"]["data"]["white_level"]
    torch.save(old, tmp_path / "old.ckpt")
    detector = Detector.load(tmp_path / "old.ckpt", device="cpu")
    assert detector.white_level == 65535
    values = np.asarray(Image.open(trees[0] / "bottle/test/scratch/000.png"))
    dark = np.rint(values / 257).astype(np.uint8)
    assert detector.predict(values).score == detector.predict(dark).score


@pytest.mark.slow
def test_a_resumed_training_goes_on_with_its_level(trees, trained, uniad, tmp_path):
    resumed = [f"ckpt_path={checkpoint(trained[0])}"]
    status, _, err = uniad("train", *settings(trees[0], tmp_path / "other", *resumed, "data.white_level=1023"))
    assert status == 2
    assert "data.white_level=4095, this run has data.white_level=1023" in err
    status, out, err = uniad("train", *settings(trees[0], tmp_path / "resumed", *resumed))
    assert status == 0, err
    assert SAID not in out  # not looked for again
    assert_same_weights(tmp_path / "resumed", trained[0])
    assert load_checkpoint(str(checkpoint(tmp_path / "resumed")))["config"]["data"]["white_level"] == 4095
    old = torch.load(checkpoint(trained[1]), weights_only=True)
    del old["config"]["data"]["white_level"]
    torch.save(old, tmp_path / "old.ckpt")
    status, _, err = uniad("train", *settings(trees[1], tmp_path / "again", f"ckpt_path={tmp_path}/old.ckpt"))
    assert status == 0, err
    assert load_checkpoint(str(checkpoint(tmp_path / "again")))["config"]["data"]["white_level"] == 65535


@pytest.mark.slow
def test_a_training_from_a_checkpoint_takes_its_level_or_finds_one(trees, trained, uniad, tmp_path):
    for run, said in zip(trained, (False, True), strict=True):  # the second has seen no deep image
        folder = tmp_path / run.name
        status, out, err = uniad(
            "train", *settings(trees[0], folder, f"init_from={checkpoint(run)}", "trainer.max_epochs=1")
        )
        assert status == 0, err
        assert (SAID in out) == said
        assert load_checkpoint(str(checkpoint(folder)))["config"]["data"]["white_level"] == 4095


@pytest.mark.slow
def test_kept_features_are_those_of_the_level(trees, trained, uniad, tmp_path):
    cache = f"data.cache_dir={tmp_path}/cache"
    for level in ("auto", "4095", "1023"):
        words = settings(trees[0], tmp_path / level, cache, "data.cache=disk", f"data.white_level={level}")
        status, _, err = uniad("train", *words)
        assert status == 0, err
    assert len(list((tmp_path / "cache").glob("*/about.json"))) == 2
    levels = sorted(json.loads(path.read_text())["white_level"] for path in (tmp_path / "cache").glob("*/about.json"))
    assert levels == [1023, 4095]


@pytest.mark.slow
def test_a_training_on_unfilled_opacity_is_one_on_opaque_images(trees, trained, uniad, tmp_path):
    copy = shutil.copytree(trees[1], tmp_path / "unfilled")
    for path in [path for path in copy.rglob("*.png") if "ground_truth" not in path.parts]:
        image = Image.open(path).convert("RGBA")
        image.putalpha(0)
        image.save(path)
    status, _, err = uniad("train", *settings(copy, tmp_path / "run"))
    assert status == 0, err
    assert_same_weights(tmp_path / "run", trained[1])
    assert err.count("is transparent everywhere") <= 1


@pytest.mark.slow
def test_two_processes_agree_and_one_of_them_looks(trees, tmp_path):
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    done = subprocess.run(
        [UNIAD, "train", *settings(trees[0], tmp_path / "deep", *overrides)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(SAID) == 1
    plain = subprocess.run(
        [UNIAD, "train", *settings(trees[1], tmp_path / "plain", *overrides)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    assert_same_weights(tmp_path / "deep", tmp_path / "plain")  # half of the images are the other process's
    assert load_checkpoint(str(checkpoint(tmp_path / "deep")))["config"]["data"]["white_level"] == 4095
