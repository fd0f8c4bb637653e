"""From a traced detector to an ONNX model with metadata."""

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

OPSET = 18  # reductions take their axes as an input, as the exporter writes them


def to_onnx(program: ExportedProgram) -> onnx.ModelProto:
    """The program as an ONNX model of opset `OPSET`, input `image`, outputs named as `DetectorGraph` names them."""
    count = len(program.graph_signature.user_outputs)
    places: dict[str, int] = tree_unflatten(list(range(count)), program.call_spec.out_spec)
    names = sorted(places, key=lambda name: places[name])
    written = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, external_data=False, output_names=names, verbose=False
    )
    if written is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return written.model_proto


def described(model: onnx.ModelProto, about: Mapping[str, Any]) -> onnx.ModelProto:
    """`model` with the metadata `about`, plain values by name, and none of the machine it was made on."""
    exported = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim if dim.dim_param]
    names = dict(zip(exported, AXES, strict=True))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, "")
    del model.graph.value_info[:]  # ONNX Runtime infers shapes itself
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
