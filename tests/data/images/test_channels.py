"""`data.channels`: files of more than three channels, from a training to what is done with its checkpoint."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.channels import check_channels
from uniad_lightning.data.images.decoding import peak_of, read_image
from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sources.headers import decoding_bytes
from uniad_lightning.training.checkpoint import load_checkpoint

TAKEN = "data.channels=[3,1,0]"


def pixels(channels: int, kind: type = np.uint8, high: int = 256) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, high, (20, 24, channels)).astype(kind)


def interleaved(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")


def in_planes(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, np.moveaxis(values, 2, 0), photometric="minisblack", planarconfig="separate")


def in_pages(path: Path, values: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        for channel in np.moveaxis(values, 2, 0):
            file.write(channel, photometric="minisblack", contiguous=True)


def deflated(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", compression="zlib", predictor=True)


def as_colour(path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="contig")


@pytest.mark.parametrize("count", [4, 5, 8])
@pytest.mark.parametrize("write", [interleaved, in_planes, in_pages, deflated, as_colour])
def test_channels_of_a_tiff_are_taken_by_their_places(tmp_path, write, count):
    values = pixels(count)
    write(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels=(3, 1, 0)), values[..., [3, 1, 0]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels=(2,)), values[..., [2, 2, 2]])


@pytest.mark.parametrize("write", [interleaved, in_planes, in_pages])
def test_deep_channels_are_scaled_by_their_white(tmp_path, write):
    values = pixels(5, np.uint16, 4096)
    values[0, 0] = (0, 4095, 0, 0, 60000)
    write(tmp_path / "a.tif", values)
    read = read_image(tmp_path / "a.tif", white_level=4095, channels=(3, 1, 0))
    np.testing.assert_array_equal(read, np.rint(values[..., [3, 1, 0]] * (255 / 4095)))
    assert peak_of(tmp_path / "a.tif", (3, 1, 0)) == 4095  # of those that are taken alone
    assert peak_of(tmp_path / "a.tif", (4,)) == 60000


def test_floats_are_fractions_of_white(tmp_path):
    values = np.linspace(0, 1, 20 * 24 * 4, dtype=np.float32).reshape(20, 24, 4)
    interleaved(tmp_path / "a.tif", values)
    read = read_image(tmp_path / "a.tif", channels=(3, 1, 0))
    np.testing.assert_array_equal(read, np.rint(values[..., [3, 1, 0]] * 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_as_pillow_does(tmp_path, orientation):
    values = pixels(3)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=tags)
    expected = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels=(0, 1, 2)), expected)
    assert (expected.shape[:2] == (24, 20)) is (orientation > 4)


@pytest.mark.parametrize(
    ("mode", "channels", "expected"),
    [("RGB", (2, 1, 0), [2, 1, 0]), ("RGBA", (3, 1, 0), [3, 1, 0]), ("L", (0,), [0, 0, 0]), ("LA", (1,), [1, 1, 1])],
)
def test_other_formats_have_the_channels_that_pillow_gives(tmp_path, mode, channels, expected):
    image = Image.fromarray(pixels(4), "RGBA").convert(mode)
    image.save(tmp_path / "a.png")
    values = np.asarray(image).reshape(20, 24, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=channels), values[..., expected])


def test_without_the_setting_such_a_file_is_refused_and_the_setting_named(tmp_path):
    for count, write in ((4, interleaved), (5, in_planes), (6, deflated)):
        write(tmp_path / "a.tif", pixels(count))
        with pytest.raises(InputError, match=rf"a\.tif: has {count} channels, .*data\.channels=\[2,1,0\]"):
            read_image(tmp_path / "a.tif")


def test_a_damaged_file_is_one_line_that_does_not_speak_of_channels(tmp_path):
    interleaved(tmp_path / "a.tif", pixels(5))
    whole = (tmp_path / "a.tif").read_bytes()
    for count in (4, 60, 200, len(whole) // 2):
        (tmp_path / "a.tif").write_bytes(whole[:count])
        with pytest.raises(InputError, match=r"a\.tif: "):
            read_image(tmp_path / "a.tif", channels=(3, 1, 0))
    (tmp_path / "a.tif").write_bytes(whole[:60])
    with pytest.raises(InputError) as refused:
        read_image(tmp_path / "a.tif")
    assert "data.channels" not in str(refused.value)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("write", [interleaved, in_planes])
def test_the_memory_that_reading_takes_is_known_before(tmp_path, kind, write):
    values = np.random.default_rng(0).random((300, 400, 6)) * (1 if kind == np.float32 else 200)
    write(tmp_path / "a.tif", values.astype(kind))
    read_image(tmp_path / "a.tif", channels=(3, 1, 0))  # what is imported does not count
    tracemalloc.start()
    read_image(tmp_path / "a.tif", channels=(3, 1, 0))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken / 1.2 < decoding_bytes(tmp_path / "a.tif", 10**6) < 4 * taken
    assert decoding_bytes(tmp_path / "a.tif", 1000) == 0  # it is refused


@pytest.mark.slow
def test_a_new_product_joins_with_the_same_channels(trees, trained, uniad, tmp_path):
    words = [f"init_from={checkpoint(trained[0])}", f"data.root={trees[0]}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *SMALL, *words, "trainer.max_epochs=1")
    assert status == 0, err
    assert load_checkpoint(str(checkpoint(tmp_path / "run")))["config"]["data"]["channels"] == [3, 1, 0]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: is a pipe"):
        read_image(tmp_path / "a.tif", channels=(0,))


def test_a_compression_that_needs_a_package_names_it(tmp_path):
    Image.fromarray(pixels(3)).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(InputError, match=r"a\.tif: .*imagecodecs.*; pip install imagecodecs, or save it without"):
        read_image(tmp_path / "a.tif", channels=(2, 1, 0))


def test_what_cannot_be_taken_is_said(tmp_path):
    interleaved(tmp_path / "a.tif", pixels(4))
    with pytest.raises(InputError, match=r"a\.tif: has 4 channels, and data\.channels=\[4, 1, 0\] takes number 4"):
        read_image(tmp_path / "a.tif", channels=(4, 1, 0))
    with pytest.raises(InputError, match=r"a\.tif: 24 x 20 pixels of 4 channels, more than the limit"):
        read_image(tmp_path / "a.tif", max_pixels=100, channels=(0,))
    interleaved(tmp_path / "b.tif", pixels(4, np.int32))
    with pytest.raises(InputError, match=r"b\.tif: has values of int32; expected 8 or 16-bit integers, or floats"):
        read_image(tmp_path / "b.tif", channels=(0,))
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((3, 2, 20, 24), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"c\.tif: its axes are .*expected height, width and channels"):
        read_image(tmp_path / "c.tif", channels=(0,))


@pytest.mark.parametrize("given", [[], [0, 1], [0, 1, -1], [0, 1, 64], [0, 1, 2.0], "012", [True], 3, [0, 1, 2, 3]])
def test_a_setting_that_is_none_is_refused(given):
    with pytest.raises(InputError, match="expected the places of red, green and blue"):
        check_channels(given)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> tuple[Path, Path]:
    """The same images twice: of five channels of 12 bits in TIFFs, and the PNGs that three of those are."""
    plain = mvtec_tree(tmp_path_factory.mktemp("plain"), train=6, size=(40, 36))
    many = shutil.copytree(plain, tmp_path_factory.mktemp("many") / "tree")
    for path in [path for path in many.rglob("*.png") if "ground_truth" not in path.parts]:
        rgb = np.asarray(Image.open(path)).astype(np.uint16) * 16 + 7
        values = np.stack([rgb[..., 2], rgb[..., 1], rgb[..., 0] // 2 + 60000, rgb[..., 0], rgb[..., 0] // 3], axis=2)
        interleaved(path.with_suffix(".tif"), values)
        path.unlink()
        Image.fromarray(np.rint(rgb * (255 / 4095)).astype(np.uint8)).save(plain / path.relative_to(many))
    return many, plain


@pytest.fixture(scope="module")
def trained(trees, tmp_path_factory) -> tuple[Path, Path]:
    """Run folders of a training on each of the trees."""
    runs = tuple(tmp_path_factory.mktemp("runs") / name for name in ("many", "plain"))
    for root, run, words in zip(trees, runs, ([TAKEN], []), strict=True):
        given = [*SMALL, f"data.root={root}", f"output_dir={run}", *words]
        assert run_command("train", given) == 0
    return runs


def checkpoint(run: Path) -> Path:
    return run / "checkpoints/last.ckpt"


def test_a_training_is_that_on_the_colours_that_were_taken(trained):
    many, plain = (load_checkpoint(str(checkpoint(run))) for run in trained)
    for name, tensor in many["state_dict"].items():
        torch.testing.assert_close(tensor, plain["state_dict"][name], rtol=0, atol=0)
    assert (trained[0] / "results.csv").read_text() == (trained[1] / "results.csv").read_text()
    assert many["config"]["data"]["channels"] == [3, 1, 0]
    assert many["config"]["data"]["white_level"] == 4095  # not that of the channel left out
    assert plain["config"]["data"]["channels"] is None


def scores(folder: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return {Path(row["path"]).stem + Path(row["path"]).parent.name: row["score"] for row in rows}


def test_predict_takes_the_same(trees, trained, uniad, tmp_path):
    for root, run in zip(trees, trained, strict=True):
        out = tmp_path / run.name
        words = [f"ckpt_path={checkpoint(run)}", f"input={root}/bottle/test", f"output_dir={out}", "device=cpu"]
        status, _, err = uniad("predict", *words)
        assert status == 0, err
    assert len(scores(tmp_path / "many")) == 5
    assert scores(tmp_path / "many") == scores(tmp_path / "plain")


def test_evaluate_takes_the_checkpoints_and_refuses_others(trees, trained, uniad, tmp_path):
    words = [f"ckpt_path={checkpoint(trained[0])}", "trainer=cpu", "data=mvtec", "data.image_size=64"]
    words += [f"data.root={trees[0]}", "data.num_workers=0"]
    status, _, err = uniad("evaluate", *words, f"output_dir={tmp_path}/evaluated")
    assert status == 0, err
    status, _, err = uniad("evaluate", *words, f"output_dir={tmp_path}/other", "data.channels=[0,1,2]")
    assert status == 2
    assert "data.channels=[0, 1, 2], but the checkpoint was trained with [3, 1, 0]; leave it out" in err


def test_a_detector_takes_them_of_files_and_arrays_as_colours(trees, trained):
    many, plain = (Detector.load(checkpoint(run), device="cpu") for run in trained)
    assert (many.channels, plain.channels) == ((3, 1, 0), None)
    name = Path("bottle/test/scratch/000.png")
    expected = plain.predict(trees[1] / name).score
    file = trees[0] / name.with_suffix(".tif")
    values = tifffile.imread(file)
    for image in (file, str(file), values[..., [3, 1, 0]], many.read(file)):
        assert many.predict(image).score == expected
    with pytest.raises(InputError, match=r"000\.png: has 3 channels, and data\.channels=\[3, 1, 0\] takes number 3"):
        many.predict(trees[1] / name)


def test_a_served_detector_takes_the_same(trees, trained):
    from uniad_lightning.serving.served_model import ServedModel

    name = Path("cable/test/hole/000.png")
    plain = Detector.load(checkpoint(trained[1]), device="cpu")
    many = ServedModel(Detector.load(checkpoint(trained[0]), device="cpu"), "x", None)
    decoded = many.decode("a.tif", (trees[0] / name.with_suffix(".tif")).read_bytes())
    np.testing.assert_array_equal(decoded, plain.read(trees[1] / name))


@pytest.mark.slow
def test_an_exported_file_takes_the_same_and_older_readers_refuse_it(trees, trained, uniad, tmp_path):
    words = [f"ckpt_path={checkpoint(trained[0])}", f"output={tmp_path}/many.onnx", f"data.root={trees[0]}"]
    status, _, err = uniad("export", *words, f"output_dir={tmp_path}/exported")
    assert status == 0, err
    exported = Detector.load(tmp_path / "many.onnx", device="cpu")
    assert (exported.channels, exported.engine.about["format"]) == ((3, 1, 0), 4)
    name = Path("bottle/test/scratch/000.png")
    own = Detector.load(checkpoint(trained[0]), device="cpu").predict(trees[0] / name.with_suffix(".tif")).score
    assert exported.predict(trees[0] / name.with_suffix(".tif")).score == pytest.approx(own, rel=1e-4)


def test_features_of_other_channels_are_others(trees, uniad, tmp_path):
    for channels in ("[3,1,0]", "[0,1,3]"):
        words = [*SMALL, f"data.root={trees[0]}", f"output_dir={tmp_path}/{channels[1]}", "data.cache=disk"]
        words += ["data.white_level=4095", f"data.cache_dir={tmp_path}/cache", f"data.channels={channels}"]
        status, _, err = uniad("train", *words, "trainer.max_epochs=1")
        assert status == 0, err
    kept = [json.loads(path.read_text()).get("channels") for path in (tmp_path / "cache").glob("*/about.json")]
    assert sorted(kept) == sorted([[3, 1, 0], [0, 1, 3]] * (len(kept) // 2))
    assert len(kept) >= 2


def test_a_training_without_the_setting_names_it(trees, uniad, tmp_path):
    status, _, err = uniad("train", *SMALL, f"data.root={trees[0]}", f"output_dir={tmp_path}/run")
    assert status == 2
    assert "has 5 channels, which are no colours that can be known; data.channels=[2,1,0]" in err
    assert "Traceback" not in err
