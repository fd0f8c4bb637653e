"""OpenVINO says of an exported file what ONNX Runtime says."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from support.configs import CONF
from support.exported_files import CPU, VARIANTS, write_checkpoint
from support.hostile_models import model
from uniad_lightning import Detector
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.errors import InputError
from uniad_lightning.exporting.export import export_detector
from uniad_lightning.exporting.plan import PRECISIONS, Plan
from uniad_lightning.exporting.verify import agreement, generated_images
from uniad_lightning.inspection.engines.checkpoint import load_engine
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.engines.openvino_runtime import OpenVinoEngine
from uniad_lightning.serving.served_model import ServedModel
from uniad_lightning.serving.settings import settings_of


@pytest.fixture(scope="module")
def folder(tree, tmp_path_factory):
    """A checkpoint `whole.ckpt` and a file of each precision, `fp32.onnx` and so on."""
    folder = tmp_path_factory.mktemp("openvino")
    engine = load_engine(str(write_checkpoint(folder / "whole.ckpt", tree, VARIANTS["whole"])), CPU)
    splits = list_mvtec(tree, categories=None)
    for precision in PRECISIONS:
        path = folder / f"{precision}.onnx"
        export_detector(engine, Plan(path, "onnx", precision), categories=["bottle", "cable"], splits=splits)
    return folder


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("fp16", 2e-2), ("int8", 2e-2)])
def test_scores_are_those_of_onnx_runtime(folder, precision, most):
    path = str(folder / f"{precision}.onnx")
    expected, found = OnnxEngine(path, "cpu"), OpenVinoEngine(path, "cpu")
    difference = agreement(expected, found, generated_images())
    assert difference.score < most
    assert difference.map < most
    assert difference.distance < 1e-3
    several = [image for batch in generated_images() for image in batch][::-1]
    outputs = expected(several), found(several)
    assert outputs[1].categories == outputs[0].categories
    assert outputs[1].maps.dtype == np.float32
    assert outputs[1].maps.shape == outputs[0].maps.shape
    assert outputs[1].scores.std() > 100 * most * abs(outputs[1].scores - outputs[0].scores).max()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["tiles", "sides"])
def test_scores_are_those_of_onnx_runtime_with_tiles_and_other_sides(variant, tree, tmp_path):
    engine = load_engine(str(write_checkpoint(tmp_path / "x.ckpt", tree, VARIANTS[variant])), CPU)
    path = tmp_path / "x.onnx"
    export_detector(engine, Plan(path, "onnx", "fp32"), categories=[], splits=None)
    # Of 700 x 900 pixels an edge of the tiles lies halfway between two of them.
    tie = np.random.default_rng(5).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    found = agreement(OnnxEngine(str(path), "cpu"), OpenVinoEngine(str(path), "cpu"), [*generated_images(), [tie]])
    assert (found.map < 1e-4, found.score < 1e-4) == (True, True)


def test_one_engine_serves_several_threads(folder):
    engine = OpenVinoEngine(str(folder / "fp32.onnx"))
    batches = generated_images()
    expected = [engine(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(engine, batches * 5))
    for place, output in enumerate(found):
        np.testing.assert_allclose(output.maps, expected[place % len(batches)].maps, rtol=1e-5)


def test_a_detector_and_the_command_line_run_it(folder, tree, uniad, tmp_path):
    file = folder / "fp32.onnx"
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    own = Detector.load(file, device="cpu").predict(image)
    other = Detector.load(file, runtime="openvino").predict(image)
    assert other.score == pytest.approx(own.score, rel=1e-4)
    assert (other.decision, other.category, other.familiar) == (own.decision, own.category, own.familiar)
    words = [f"ckpt_path={file}", f"input={tree}/bottle/test", "runtime=openvino", f"output_dir={tmp_path}/out"]
    status, _, err = uniad("predict", *words, "device=CPU")
    assert status == 0, err
    assert '"runtime": "openvino"' in (tmp_path / "out/predictions.json").read_text()
    status, _, err = uniad("predict", *words, "device=cuda", "overwrite=true")
    assert status == 2
    assert "device=cuda: not a device that OpenVINO finds here; expected auto, or CPU" in err


@pytest.mark.parametrize(
    ("file", "more", "words"),
    [
        ("whole.ckpt", {"runtime": "openvino"}, "uniad export ckpt_path="),
        ("fp32.onnx", {"runtime": "openvin"}, "Did you mean 'openvino'?"),
        ("fp32.onnx", {"runtime": "openvino", "device": "GPU.7"}, "device=GPU.7: not a device"),
        ("fp32.onnx", {"runtime": "openvino", "precision": "fp16"}, "has the precision that uniad export gave it"),
    ],
)
def test_mistakes_are_one_line(folder, file, more, words):
    with pytest.raises(InputError) as refused:
        Detector.load(folder / file, **more)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_openvino_the_line_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'uniad-lightning\[openvino\]'"):
        OpenVinoEngine(str(folder / "fp32.onnx"))


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "x.onnx"
    for content, words in (
        (b"no model", "cannot be read as an ONNX model"),
        (model(image="picture").SerializeToString(), "its graph was changed"),
        (model(tiles=0).SerializeToString(), "its metadata is damaged"),
        (model().SerializeToString().replace(b"ReduceMean", b"ReduceMoan"), "OpenVINO"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError) as refused:
            OpenVinoEngine(str(path))([np.zeros((8, 8, 3), np.uint8)])
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)


def test_nothing_is_reported_to_the_maker(folder, tmp_path):
    """OpenVINO's package for that is not imported, and leaves no number of the user in the home folder."""
    (tmp_path / "home").mkdir()
    program = (
        "import sys; from uniad_lightning import Detector; "
        f"Detector.load({str(folder / 'fp32.onnx')!r}, runtime='openvino'); "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "HOME": str(tmp_path / "home"), "CI": "false"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_it_is_served(folder):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("serve", [f"ckpt_path={folder / 'fp32.onnx'}", "runtime=openvino", "boundary=-1"])
    detector = ServedModel.load(settings_of(cfg)).detector
    assert isinstance(detector.engine, OpenVinoEngine)
    assert detector.predict(np.zeros((8, 8, 3), np.uint8)).defective
