"""A small .onnx file as `uniad export` writes one, and whatever is to be changed in it."""

import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

BOUNDARY = {"score": 1.0, "pixel": 1.0, "spread": 0.5, "images": 9, "rate": 0.1, "low": 0.0, "high": 0.2}
ABOUT = {
    "format": 3, "version": "0", "precision": "fp32", "image_size": [8, 8], "map_size": [8, 8], "white_level": 255,
    "region": [0.0, 0.0, 1.0, 1.0], "tiles": 1, "categories": ["a"], "found": [],
    "calibration": {"method": "rate=0.1", "overall": BOUNDARY, "categories": {"a": BOUNDARY}, "by_category": False},
}  # fmt: skip


def model(*, image="image", kind=TensorProto.UINT8, outputs=("map", "score"), weight=None, **about):
    """A graph whose map is the mean over the channels and whose score is the largest of it."""
    weight = weight or numpy_helper.from_array(np.float32([1.0]), "weight")
    nodes = [
        helper.make_node("Cast", [image], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "weight"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], [outputs[0]], axes=[3], keepdims=0),
        helper.make_node("ReduceMax", [outputs[0]], [outputs[1]], axes=[1, 2], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(image, kind, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], [weight],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for name, value in {**ABOUT, **about}.items():
        made.metadata_props.add(key=f"uniad.{name}", value=value if isinstance(value, bytes) else json.dumps(value))
    return made
