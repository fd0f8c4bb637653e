"""Exported files say what their checkpoints say, in programs that have neither this package nor Lightning."""

import contextlib
import copy
import io
import json
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import uniad_lightning.exporting.export
import uniad_lightning.exporting.onnx_model
from support.exported_files import CPU, VARIANTS, write_checkpoint
from support.pictures import damaged
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.errors import InputError
from uniad_lightning.exporting.export import export_detector
from uniad_lightning.exporting.low_precision import fold_constants
from uniad_lightning.exporting.plan import Plan, plan_export
from uniad_lightning.exporting.verify import agreement, generated_images, refuse_disagreement
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.inspection.engines.base import EngineOutput
from uniad_lightning.inspection.engines.checkpoint import load_engine
from uniad_lightning.inspection.engines.metadata import CHANNELS_FORMAT, FORMAT
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine
from uniad_lightning.inspection.engines.program import ProgramEngine


@pytest.fixture(scope="module")
def said():
    """What the command printed that made `folder`'s first file."""
    return io.StringIO()


@pytest.fixture(scope="module")
def folder(tree, tmp_path_factory, said):
    """A checkpoint `whole.ckpt` and the files made of it: one by the command, others of the same traced graph."""
    folder = tmp_path_factory.mktemp("exported")
    path = write_checkpoint(folder / "whole.ckpt", tree, VARIANTS["whole"])
    engine, splits = load_engine(str(path), CPU), list_mvtec(tree, categories=None)
    with pytest.MonkeyPatch.context() as patch:
        program = uniad_lightning.exporting.graph.trace(engine)
        patch.setattr(uniad_lightning.exporting.export, "trace", lambda _: program)
        model = uniad_lightning.exporting.onnx_model.to_onnx(program)
        patch.setattr(uniad_lightning.exporting.onnx_model, "to_onnx", lambda _: copy.deepcopy(model))
        with contextlib.redirect_stdout(said):
            assert run_command("export", [f"ckpt_path={path}", f"output_dir={folder}/out"]) == 0
        for name, form, precision in (
            ("half.onnx", "onnx", "fp16"),
            ("bytes.onnx", "onnx", "int8"),
            ("whole.pt2", "torch", "fp32"),
        ):
            export_detector(engine, Plan(folder / name, form, precision), categories=["bottle", "cable"], splits=splits)
    return folder


def mixed():
    """Pictures of several sizes in one list, some alike, none in order of size."""
    batches = generated_images()
    return [picture for batch in [*batches[::-1], *batches] for picture in batch]


def assert_same(checkpoint, file, pictures):
    expected, found = checkpoint(pictures), file(pictures)
    span = expected.maps.max() - expected.maps.min()
    assert span > 0.01
    assert found.maps.dtype == np.float32
    assert found.maps.shape == (len(pictures), *checkpoint.map_size)
    np.testing.assert_allclose(found.maps, expected.maps, atol=5e-5 * span)
    np.testing.assert_allclose(found.scores, expected.scores, atol=5e-5 * span)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-3)
    assert found.categories == expected.categories


@pytest.mark.parametrize("variant", [v if v == "whole" else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS])
def test_onnx_runtime_says_what_the_checkpoint_says(variant, folder, tree, tmp_path):
    if variant == "whole":
        path, written = folder / "whole.ckpt", folder / "whole.onnx"
        checkpoint = load_engine(str(path), CPU)
    else:
        path, written = write_checkpoint(tmp_path / "x.ckpt", tree, VARIANTS[variant]), tmp_path / "x.onnx"
        checkpoint = load_engine(str(path), CPU)
        done = export_detector(checkpoint, Plan(written, "onnx", "fp32"), categories=[], splits=None)
        assert (done.real, done.generated) == (0, len(mixed()) // 2)
        assert done.agreement.map < 1e-4
    file = OnnxEngine(str(written), "cpu")
    assert_same(checkpoint, file, mixed())
    assert file.region == checkpoint.region
    decided = file.session.run(["defective", "score"], {"image": np.stack([mixed()[0]] * 2)})
    assert decided[0].tolist() == (decided[1] > checkpoint.calibration.overall.score).tolist()


def test_both_decisions_occur_and_a_detector_gives_them(folder):
    checkpoint, file = Detector.load(folder / "whole.ckpt"), Detector.load(folder / "whole.onnx", device="cpu")
    assert file.calibration == checkpoint.calibration
    for category in (None, "bottle"):
        pairs = list(
            zip(checkpoint.predict(mixed(), category=category), file.predict(mixed(), category=category), strict=True)
        )
        assert {theirs.defective for _, theirs in pairs} == {True, False}
        assert {theirs.familiar for _, theirs in pairs} == {True, False}
        for ours, theirs in pairs:
            assert theirs.score == pytest.approx(ours.score, rel=1e-4)
            assert (theirs.decision, theirs.familiar) == (ours.decision, ours.familiar)
            assert theirs.anomaly_map.shape == theirs.image.shape[:2]
    with pytest.raises(InputError, match="bottel.*Did you mean 'bottle'"):
        file.predict(mixed(), category="bottel")


ALONE = textwrap.dedent("""
    import sys
    class Wall:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {walled}:
                raise ImportError(name + " is out of bounds")
    sys.meta_path.insert(0, Wall())
    import numpy as np
    pictures = np.load({pictures!r})
""")
BY_ONNX = """
import onnxruntime
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
for key in pictures:
    np.savez(f"{out}/{{key}}", **dict(zip(names, session.run(names, {{"image": pictures[key]}}))))
"""
BY_TORCH = """
import torch
program = torch.export.load({file!r}).module()
for key in pictures:
    outputs = program(torch.from_numpy(pictures[key]))
    np.savez(f"{out}/{{key}}", **{{name: value.numpy() for name, value in outputs.items()}})
"""


@pytest.mark.parametrize(
    ("name", "walled", "program"),
    [
        ("whole.onnx", ("uniad_lightning", "torch", "lightning", "timm", "PIL"), BY_ONNX),
        pytest.param("whole.pt2", ("uniad_lightning", "lightning", "timm", "PIL"), BY_TORCH, marks=pytest.mark.slow),
    ],
)
def test_a_file_runs_where_this_package_is_not(name, walled, program, folder, tmp_path):
    batches = {f"b{place}": np.stack(batch) for place, batch in enumerate(generated_images())}
    np.savez(tmp_path / "pictures.npz", **batches)
    code = (ALONE + program).format(
        walled=walled, pictures=str(tmp_path / "pictures.npz"), file=str(folder / name), out=tmp_path
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoint = load_engine(str(folder / "whole.ckpt"), CPU)
    for key, batch in batches.items():
        outputs, expected = np.load(tmp_path / f"{key}.npz"), checkpoint(list(batch))
        assert set(outputs) == {"score", "map", "distance", "category", "defective"}
        assert outputs["score"].shape == outputs["defective"].shape == outputs["distance"].shape == (len(batch),)
        np.testing.assert_allclose(outputs["map"], expected.maps, atol=1e-4)
        np.testing.assert_allclose(outputs["score"], expected.scores, atol=1e-4)
        found = [checkpoint.familiarity.names[place] for place in outputs["category"]]
        assert found == expected.categories
        boundaries = np.array([checkpoint.calibration.deciding(name).score for name in found])
        assert outputs["defective"].tolist() == (expected.scores > boundaries).tolist()


def test_the_onnx_file_is_plain_and_says_what_it_is(folder, tree):
    model = onnx.load(folder / "whole.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert not model.functions
    (picture,) = model.graph.input
    assert (picture.name, picture.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    sizes = [dim.dim_param or dim.dim_value for dim in picture.type.tensor_type.shape.dim]
    assert sizes == ["batch", "height", "width", 3]
    said = {one.key: json.loads(one.value) for one in model.metadata_props}
    checkpoint = torch.load(folder / "whole.ckpt", weights_only=True)
    assert said["uniad.format"] == FORMAT
    assert said["uniad.version"] == uniad_lightning.__version__ == model.producer_version
    assert said["uniad.image_size"] == [64, 64]
    assert said["uniad.region"] == [0, 0, 1, 1]
    assert said["uniad.categories"] == ["bottle", "cable"]
    assert said["uniad.calibration"] == checkpoint["calibration"]
    whole = (folder / "whole.onnx").read_bytes()
    for private in (str(tree), str(folder), "site-packages", ".py"):  # nothing of the machine it was made on
        assert private.encode() not in whole


@pytest.mark.parametrize(
    ("name", "precision", "kind", "most"),
    [("half.onnx", "fp16", "FLOAT16", 0.01), ("bytes.onnx", "int8", "INT8", 0.05)],
)
def test_smaller_numbers_make_smaller_files_that_differ_little(name, precision, kind, most, folder, tree):
    weights = onnx.load(folder / name).graph.initializer
    assert sum(tensor.data_type == getattr(onnx.TensorProto, kind) and len(tensor.dims) > 1 for tensor in weights) > 12
    assert (folder / name).stat().st_size < (folder / "whole.onnx").stat().st_size
    checkpoint, file = load_engine(str(folder / "whole.ckpt"), CPU), OnnxEngine(str(folder / name), "cpu")
    records = list_mvtec(tree, categories=None).test
    found = agreement(checkpoint, file, [[read_image(record.image)] for record in records])
    assert 1e-5 < found.map < most
    assert file.about["precision"] == precision


def test_several_threads_may_use_one_engine(folder):
    file = OnnxEngine(str(folder / "whole.onnx"), "cpu")
    expected = file(mixed()).maps
    with ThreadPoolExecutor(4) as threads:
        for seen in threads.map(file, [mixed()] * 4):
            np.testing.assert_array_equal(seen.maps, expected)


def test_a_program_of_torch_is_an_engine_too(folder):
    file = ProgramEngine(str(folder / "whole.pt2"))
    checkpoint = load_engine(str(folder / "whole.ckpt"), CPU)
    assert_same(checkpoint, file, mixed())
    assert file.calibration == checkpoint.calibration
    with pytest.raises(InputError, match="cannot be read as a program"):
        ProgramEngine(str(folder / "whole.onnx"))


def test_the_command_writes_beside_the_checkpoint_and_reports(uniad, said, folder, tmp_path):
    assert f"{folder}/whole.onnx: " in said.getvalue()
    assert "4 test images and 10 generated images" in said.getvalue()
    facts = json.loads((folder / "out" / "export.json").read_text())
    assert facts["precision"] == "fp32"
    assert 0 < facts["agreement"]["map"] < 1e-5
    assert not list(folder.glob(".*"))
    status, _, err = uniad("export", f"ckpt_path={folder}/whole.ckpt", f"output_dir={tmp_path}/out")
    assert status == 2
    assert "whole.onnx: is there already; choose another output, or overwrite=true" in err


@pytest.mark.slow
def test_without_boundary_and_data_the_command_says_so(uniad, folder, tmp_path):
    checkpoint = torch.load(folder / "whole.ckpt", weights_only=True)
    del checkpoint["calibration"], checkpoint["familiarity"]
    checkpoint["config"]["data"]["root"] = str(tmp_path / "gone")
    torch.save(checkpoint, tmp_path / "bare.ckpt")
    bare = [f"ckpt_path={tmp_path}/bare.ckpt", f"output_dir={tmp_path}/out"]
    status, out, err = uniad("export", *bare, "format=torch", f"output={tmp_path}/sub/x.pt2")
    assert status == 0
    assert "the checkpoint has no boundary" in err
    assert "10 generated images alone" in out
    engine = ProgramEngine(str(tmp_path / "sub" / "x.pt2"))
    assert engine.calibration is engine(mixed()).distances is None
    assert engine.about["categories"] == ["bottle", "cable"]
    status, _, err = uniad("export", *bare, f"data.root={tmp_path}/gone")
    assert status == 2
    assert f"{tmp_path}/gone" in err
    status, _, err = uniad("export", *bare, "precision=int8")
    assert status == 2
    assert "precision=int8: needs good images" in err
    assert not (tmp_path / "bare.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp61"}, "precision=fp61: unknown; expected one of fp32, fp16, int8. Did you mean 'fp16'?"),
        ({"format": "onxn"}, "format=onxn: unknown; expected one of onnx, torch. Did you mean 'onnx'?"),
        ({"format": "torch", "precision": "int8"}, "precision=int8: format=torch is written in fp32 alone"),
        ({"output": "x.pt2"}, "output=x.pt2: expected a name that ends in .onnx"),
        ({"output": "/proc/x.onnx"}, "output=/proc/x.onnx: cannot be written"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options, message, tmp_path):
    given = {"output": None, "format": "onnx", "precision": "fp32", "overwrite": False, **options}
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(InputError) as refused:
        plan_export(str(tmp_path / "last.ckpt"), **given)
    assert message in str(refused.value)


def test_a_checkpoint_that_is_not_there_is_named_and_no_folder_made_for_it(uniad, tmp_path):
    status, _, err = uniad("export", f"ckpt_path={tmp_path}/typo/last.ckpt", f"output_dir={tmp_path}/out")
    assert status == 2
    assert f"ckpt_path={tmp_path}/typo/last.ckpt: no such file" in err
    assert not (tmp_path / "typo").exists()


def test_missing_packages_are_named(folder, monkeypatch):
    monkeypatch.setattr(
        uniad_lightning.exporting.plan, "find_spec", lambda name: None if name == "onnxscript" else True
    )
    with pytest.raises(InputError, match=r"onnxscript not installed; pip install 'uniad-lightning\[export\]'"):
        plan_export("last.ckpt", output=None, format="onnx", precision="fp32", overwrite=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'uniad-lightning\[export\]'"):
        OnnxEngine(str(folder / "whole.onnx"))


def test_a_file_that_says_something_else_is_deleted_and_an_older_one_stays(folder, monkeypatch, tmp_path):
    whole = uniad_lightning.exporting.graph.resize_parts
    monkeypatch.setattr(
        uniad_lightning.exporting.graph, "resize_parts", lambda *given: (whole(*given) - 1).clamp(min=0)
    )
    (tmp_path / "x.pt2").write_text("an older file")
    engine = load_engine(str(folder / "whole.ckpt"), CPU)
    with pytest.raises(InputError, match=r"map differs from the checkpoint's by \d\.\de-\d\d .* deleted"):
        export_detector(engine, Plan(tmp_path / "x.pt2", "torch", "fp32"), categories=[], splits=None)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x.pt2", "an older file")]


def test_weights_that_one_file_cannot_hold_are_refused(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(uniad_lightning.exporting.export, "ONE_FILE", 1000)
    engine = load_engine(str(folder / "whole.ckpt"), CPU)
    with pytest.raises(InputError, match="an .onnx file holds 2 GB; use format=torch"):
        export_detector(engine, Plan(tmp_path / "x.onnx", "onnx", "fp32"), categories=[], splits=None)
    assert not list(tmp_path.iterdir())


def altered(source, target, **entries):
    model = onnx.load(source)
    kept = {one.key: one.value for one in model.metadata_props if one.key != "uniad.digest"} | {
        f"uniad.{name}": text for name, text in entries.items()
    }
    del model.metadata_props[:]
    for name, text in kept.items():
        if text is not None:
            model.metadata_props.add(key=name, value=text)
    onnx.save(model, target)
    return str(target)


def test_a_file_that_is_none_of_ours_is_refused(folder, tmp_path):
    path, whole = tmp_path / "x.onnx", folder / "whole.onnx"

    def refusal(name, device="auto"):
        with pytest.raises(InputError) as refused:
            OnnxEngine(str(name), device)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "no such file" in refusal(path)
    path.write_bytes(b"no model")
    assert "cannot be read as an ONNX model; expected a file of uniad export" in refusal(path)
    path.write_bytes(whole.read_bytes()[:5000])
    assert "cannot be read as an ONNX model" in refusal(path)
    assert "(its input: image tensor(uint8)); expected a file of uniad export" in refusal(
        altered(whole, path, format=None)
    )
    newer = refusal(altered(whole, path, format=str(CHANNELS_FORMAT + 1), version='"9.1"'))
    assert f"format {CHANNELS_FORMAT + 1}, written by uniad-lightning 9.1" in newer
    assert f"reads format {CHANNELS_FORMAT}; update it" in newer
    assert "is damaged" in refusal(altered(whole, path, calibration="{"))
    assert "its metadata lacks region" in refusal(altered(whole, path, region=None))
    assert "Did you mean 'cuda'?" in refusal(whole, "cude")
    assert "has no CUDA" in refusal(whole, "cuda:1")


@pytest.mark.parametrize(("name", "count"), [("whole.onnx", 40), ("half.onnx", 10), ("whole.pt2", 12)])
def test_a_damaged_file_is_refused_or_says_the_same(folder, tmp_path, name, count):
    make = (lambda path: OnnxEngine(str(path), "cpu")) if name.endswith(".onnx") else (lambda path: ProgramEngine(path))
    pictures, path, refused = generated_images()[5], tmp_path / name, []
    expected = make(folder / name)(pictures).scores
    for content in damaged((folder / name).read_bytes(), count):
        path.write_bytes(content)
        try:
            found = make(path)(pictures).scores
        except InputError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(found, expected)
    assert len(refused) > 0.8 * count
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refused)


def test_a_file_that_another_program_changed_says_how_it_is_taken(folder, tmp_path):
    model = onnx.load(folder / "whole.onnx")
    model.doc_string = "optimised by another program"
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(InputError, match="take uniad.digest out of its metadata"):
        OnnxEngine(str(tmp_path / "x.onnx"), "cpu")
    entries = [one for one in model.metadata_props if one.key != "uniad.digest"]
    del model.metadata_props[:]
    model.metadata_props.add(key="uniad.digest", value='"0"')
    model.metadata_props.extend(entries)
    onnx.save(model, tmp_path / "x.onnx")  # not at its end any more
    with pytest.raises(InputError, match="take uniad.digest out of its metadata"):
        OnnxEngine(str(tmp_path / "x.onnx"), "cpu")
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    onnx.save(model, tmp_path / "x.onnx")
    expected = OnnxEngine(str(folder / "whole.onnx"), "cpu")(mixed()).scores
    np.testing.assert_array_equal(OnnxEngine(str(tmp_path / "x.onnx"), "cpu")(mixed()).scores, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "suffix"), [("torch", ".pt2"), ("onnx", ".onnx")])
def test_a_full_disk_ends_an_export_in_one_line(folder, small_disk, form, suffix):
    engine = load_engine(str(folder / "whole.ckpt"), CPU)
    (small_disk / "filler").write_bytes(bytes(3_800_000))
    with pytest.raises(InputError, match=r"output: .*small cannot take the file; No space left .* the disk is full"):
        export_detector(engine, Plan(small_disk / f"x{suffix}", form, "fp32"), categories=[], splits=None)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_full_folder_for_temporary_files_is_named(folder, small_disk, monkeypatch):
    (small_disk / "filler").write_bytes(bytes(3_800_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(InputError, match=r"TMPDIR=.*small: has 0 MB free and 4 MB are needed .* set TMPDIR"):
        fold_constants(onnx.load(folder / "whole.onnx"))


def test_pillow_pictures_are_inspected_alike(folder):
    picture = Image.fromarray(generated_images()[5][0])
    scores = [
        Detector.load(folder / name, device="cpu").predict(picture).score for name in ("whole.ckpt", "whole.onnx")
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_distance_of_thousands_of_boundaries_is_compared_by_its_share():
    def engine(distance):
        return lambda images: EngineOutput(np.ones((1, 2, 2), np.float32), np.ones(1), np.array([distance]), [None])

    batches = [[np.zeros((4, 4, 3), np.uint8)]]
    refuse_disagreement(agreement(engine(33143.0), engine(33143.006), batches))
    with pytest.raises(InputError, match="the exported file's distance differs"):
        refuse_disagreement(agreement(engine(33143.0), engine(33190.0), batches))
    with pytest.raises(InputError, match="the exported file's distance differs"):
        refuse_disagreement(agreement(engine(0.5), engine(0.506), batches))
