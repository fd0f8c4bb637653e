"""An .onnx file of a stranger: it opens no other file, and whatever is wrong with it is one line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.hostile_models import ABOUT, BOUNDARY, model
from uniad_lightning.errors import InputError
from uniad_lightning.files.onnx_parts import names_other_files
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine


def saved(tmp_path, made):
    path = tmp_path / "x.onnx"
    path.write_bytes(made.SerializeToString())
    return str(path)


def refusal(path):
    with pytest.raises(InputError) as refused:
        OnnxEngine(path, "cpu")([np.zeros((8, 8, 3), np.uint8)])
    assert str(refused.value).startswith(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_sound_one_is_read(tmp_path):
    detector = Detector.load(saved(tmp_path, model()), device="cpu")
    assert detector.predict(np.full((8, 8, 3), 7, np.uint8)).score == 7
    assert detector.engine.categories == ("a",)


def external(location):
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=str(location))
    return weight


def test_weights_in_other_files_are_not_opened(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.float32([42]).tobytes())
    for location in ("secret.bin", secret, "../secret.bin", "/dev/zero"):
        assert "weights in other files" in refusal(saved(tmp_path, model(weight=external(location))))
    # Wherever in the graph they are.
    hidden = helper.make_node("Constant", [], ["c"])
    hidden.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=external("secret.bin"))
    inner = helper.make_graph([hidden], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=helper.make_graph([], "no", [], []))
    for place in ("node", "branch", "function", "training"):
        made = model()
        if place == "function":
            made.functions.append(helper.make_function("d", "f", [], ["c"], [hidden], []))
        elif place == "training":
            made.training_info.add(algorithm=inner)
        else:
            made.graph.node.append(hidden if place == "node" else branch)
        assert names_other_files(memoryview(made.SerializeToString())), place
    assert not names_other_files(memoryview(model().SerializeToString()))


def test_a_graph_with_other_inputs_or_outputs_is_refused(tmp_path):
    for changed in ({"image": "picture"}, {"kind": TensorProto.FLOAT}, {"outputs": ("heat", "score")}):
        assert "its graph was changed, it has the inputs" in refusal(saved(tmp_path, model(**changed)))
    made = model()
    made.graph.node[2].attribute[0].ints[0] = 2  # the mean over the columns: a map of 3 columns, which is accepted
    made.graph.node[3].attribute[0].ints[:] = [1]  # scores (B, columns)
    assert "its output score is none of uniad export" in refusal(saved(tmp_path, made))
    unfit = numpy_helper.from_array(np.ones((1, 7, 7, 1), np.float32), "weight")  # for images of 7 x 7 alone
    assert "ONNX Runtime cannot run it" in refusal(saved(tmp_path, model(weight=unfit)))


@pytest.mark.parametrize(
    "about",
    [
        {"format": "three"}, {"format": None}, {"format": []}, {"image_size": 8}, {"image_size": [8]},
        {"image_size": ["8", "8"]}, {"image_size": [0, 8]}, {"image_size": [8, 10**9]}, {"image_size": [True, 8]},
        {"tiles": 0}, {"tiles": "1"}, {"tiles": None}, {"region": None}, {"region": [0, 0, 1]}, {"region": "abcd"},
        {"region": [0, 0, float("nan"), 1]}, {"region": [1, 0, 0, 1]}, {"region": [-5, 0, 1, 1]},
        {"white_level": 0}, {"white_level": "white"}, {"white_level": 10**9}, {"categories": "abc"},
        {"categories": [1]}, {"categories": {"a": 1}}, {"found": 3}, {"found": [None]}, {"calibration": 3},
        {"calibration": []}, {"calibration": "x"}, {"calibration": {}}, {"calibration": {"categories": {}}},
        {"calibration": {**ABOUT["calibration"], "method": 1}}, {"calibration": {**ABOUT["calibration"], "overall": 1}},
        {"calibration": {**ABOUT["calibration"], "overall": {"score": 1}}},
        {"calibration": {**ABOUT["calibration"], "overall": {**BOUNDARY, "score": "1"}}},
        {"calibration": {**ABOUT["calibration"], "overall": {**BOUNDARY, "score": float("nan")}}},
        {"calibration": {**ABOUT["calibration"], "overall": {**BOUNDARY, "spread": 0}}},
        {"calibration": {**ABOUT["calibration"], "overall": {**BOUNDARY, "more": 1}}},
        {"calibration": {**ABOUT["calibration"], "categories": {"a": []}}},
        {"calibration": {**ABOUT["calibration"], "categories": 3}},
        {"calibration": b"[" * 100_000}, {"region": b"{"}, {"tiles": b""}, {"format": b"1" * 5000},
    ],
)  # fmt: skip
def test_damaged_metadata_is_one_line(tmp_path, about):
    assert "its metadata is damaged (" in refusal(saved(tmp_path, model(**about)))
