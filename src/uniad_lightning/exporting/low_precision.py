"""Smaller numbers for an exported graph: half precision, or 8-bit integers with ranges from good images.

Only nodes between the first and the last layer with trained weights are changed, backbone and network. Resizing stays
exact, and the map, a difference of nearly equal numbers, stays in float32.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from uniad_lightning.errors import InputError

MATRIX_PRODUCTS = ("MatMul", "Gemm")
WEIGHTED = ("Conv", *MATRIX_PRODUCTS)
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
ALWAYS_FLOAT = {("Resize", 2)}  # an operator and the place of an input that ONNX has in float32 alone: `scales`


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with backbone and network in half precision; inputs and outputs keep their types.

    Not by ONNX Runtime's converter, which casts also the nodes that it leaves in float32 to half precision in between.
    """
    model = fold_constants(model)
    kinds = _kinds(model)
    inside = {node.name for node in _between(model)}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    halved: dict[str, str] = {}  # a float value from outside -> the same in half precision
    for node in model.graph.node:
        if node.name not in inside:
            nodes.append(node)
            continue
        for place, value in enumerate(node.input):
            if kinds.get(value) != FLOAT or (node.op_type, place) in ALWAYS_FLOAT:
                continue
            if value not in halved:
                halved[value] = f"{value}.half"
                if value in weights:
                    model.graph.initializer.append(_half(weights[value], halved[value]))
                else:
                    nodes.append(_cast(value, halved[value], HALF))
            node.input[place] = halved[value]
        _halve_attributes(node)
        restored = []
        for place, value in enumerate(node.output):
            if kinds.get(value) == FLOAT:
                node.output[place] = halved[value] = f"{value}.half"
                restored.append(_cast(halved[value], value, FLOAT))
        nodes += [node, *restored]
    return _with_nodes(model, nodes)


def to_int8(model: onnx.ModelProto, images: Iterable[np.ndarray], *, parts: Sequence[str]) -> onnx.ModelProto:
    """`model` with the matrix products of the detector's `parts` in 8-bit integers.

    They are scaled by channel and by ranges in `images`, good ones (H, W, 3) uint8 RGB. The first product and the last
    stay float32: they read and write features, whose channels differ in scale. So do norms and softmax (QDQ form), and
    the backbone: with 8 bits its convolutions were no faster, and cost 5 points of image AUROC (docs/export.md).
    Weights use 7 bits: with 8, sums overflow on CPUs without VNNI, and the outputs would differ there.

    Raises InputError for a network without such products.
    """
    network = {node.name for node in model.graph.node if any(_of(one, parts) for one in node.metadata_props)}
    model = fold_constants(model)
    weighted = [node.name for node in _weighted(model) if node.op_type in MATRIX_PRODUCTS and node.name in network]
    products = weighted[1:-1]
    if not products:
        raise InputError("precision=int8: this network has no inner products to make integers of; use precision=fp16")
    with _working_folder(model) as folder:
        source, target = folder / "fp32.onnx", folder / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(MATRIX_PRODUCTS),
            nodes_to_quantize=products,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": list(MATRIX_PRODUCTS)},
        )
        return onnx.load(target)


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with constant nodes folded, such as the parts of a packed projection's weights."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with _working_folder(model) as folder:
        options.optimized_model_filepath = str(folder / "folded.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


@contextmanager
def _working_folder(model: onnx.ModelProto) -> Iterator[Path]:
    """A folder for copies of `model`; InputError without room, where ONNX Runtime would report a damaged model."""
    with tempfile.TemporaryDirectory() as folder:
        needed, free = 4 * model.ByteSize(), shutil.disk_usage(folder).free
        if free < needed:
            sizes = f"has {free / 1e6:.0f} MB free and {needed / 1e6:.0f} MB are needed temporarily"
            raise InputError(
                f"TMPDIR={tempfile.gettempdir()}: {sizes}; free some space, or set TMPDIR to another folder"
            )
        yield Path(folder)


def _of(entry: onnx.StringStringEntryProto, parts: Sequence[str]) -> bool:
    """Whether a node's metadata entry names one of the detector's `parts` as its origin."""
    return entry.key == "pkg.torch.onnx.name_scopes" and any(f"'module.{part}'" in entry.value for part in parts)


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value of the graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}
    return kinds | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    with np.errstate(over="ignore"):  # an infinite mask stays infinite; other overflows show in the comparison
        return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), name)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Makes a node produce half precision where its attributes produce floats."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_half(attribute.t, attribute.t.name))


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """`model` with `nodes` in place of its own, without those that no output needs."""
    needed: set[str] = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(nodes):
        if needed & {*node.output}:
            needed |= {*node.input}
            kept.append(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(tensors)
    return model


def _weighted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions and matrix products with trained weights, in the order of the graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in WEIGHTED and constants & {*node.input}]


def _between(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the last weighted node needs and the first one does not, both included."""
    weighted = _weighted(model)
    first, last = weighted[0], weighted[-1]
    between = _needed(model, [*last.output]) - _needed(model, [*first.input])
    return [node for node in model.graph.node if node.name in between]


def _needed(model: onnx.ModelProto, values: list[str]) -> set[str]:
    """Names of the nodes that `values` are computed by."""
    makers = {value: node for node in model.graph.node for value in node.output}
    names: set[str] = set()
    waiting = list(values)
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker.name not in names:
            names.add(maker.name)
            waiting += maker.input
    return names


class _Images(CalibrationDataReader):
    """Passes images (H, W, 3) to the quantiser one at a time."""

    def __init__(self, images: Iterable[np.ndarray]):
        self.images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image as the graph's input; None after the last."""
        image = next(self.images, None)
        return None if image is None else {"image": image[None]}
