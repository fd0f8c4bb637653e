"""From a traced detector to an ONNX model that describes itself."""

import json
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from uniad_lightning import __version__
from uniad_lightning.exporting.graph import AXES
from uniad_lightning.inspection.engines.exported import KEY

OPSET = 18  # reductions with their axes as an input, as the exporter writes them; nothing newer is needed


def to_onnx(program: ExportedProgram) -> onnx.ModelProto:
    """The program as an ONNX model of opset `OPSET`, input `image`, outputs named as `DetectorGraph` names them."""
    count = len(program.graph_signature.user_outputs)
    places: dict[str, int] = tree_unflatten(list(range(count)), program.call_spec.out_spec)
    names = sorted(places, key=lambda name: places[name])
    written = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, external_data=False, output_names=names, verbose=False
    )
    if written is None:
        raise RuntimeError("torch.onnx.export gave no program")
    return written.model_proto


def described(model: onnx.ModelProto, about: Mapping[str, Any]) -> onnx.ModelProto:
    """`model` that says `about` itself, plain values by name, and nothing of the machine it was made on."""
    given = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim if dim.dim_param]
    names = dict(zip(given, AXES, strict=True))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, "")
    del model.graph.value_info[:]  # ONNX Runtime works shapes out for itself
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.producer_name, model.producer_version = "uniad-lightning", __version__
    for name, value in about.items():
        model.metadata_props.add(key=f"{KEY}{name}", value=json.dumps(value))
    return model
