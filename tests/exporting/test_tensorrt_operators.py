"""Exported graphs have no operator that TensorRT does not list; it was not run here.

The list: https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/docs/operators.md, those with Y, of commit 96e7811.
"""

import pytest
import torch
from hydra import compose, initialize_config_dir

from support.configs import CONF
from uniad_lightning.data.images.tiling import WHOLE
from uniad_lightning.detectors.one_pass import OnePass
from uniad_lightning.exporting.graph import trace
from uniad_lightning.exporting.onnx_model import to_onnx
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.training.build import build_module
from uniad_lightning.training.method import leave_out_unused
from uniad_lightning.types import Batch

LISTED = set(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid
    HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization
    Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RNN RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
    Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """.split()  # noqa: SIM905 - reads better than a hundred quoted words
)
NOT_EXPORTED = {"mkd"}
METHODS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
SIDE = 96


def module_of(method):
    """The demo's detector of a method, with random weights; a fitted one is fitted to noise."""
    torch.manual_seed(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["experiment=demo", f"model={method}", f"data.image_size={SIDE}", "backbone.weights=random"]
        cfg = compose("train", words)
    leave_out_unused(cfg)
    module = build_module(cfg, announce=False)
    if isinstance(module, OnePass):
        module.collect(Batch(image=torch.randn(4, 3, SIDE, SIDE), index=torch.arange(4)))
        module.finish()
    return module


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_operator_is_listed(method):
    module = module_of(method)
    assert (method in NOT_EXPORTED) == (not module.precisions)
    if method in NOT_EXPORTED:
        return
    engine = TorchEngine(
        module=module, framing=WHOLE, image_size=(SIDE, SIDE), mean=module.mean, std=module.std,
        device=torch.device("cpu"), calibration=None, familiarity=None,
    )  # fmt: skip
    model = to_onnx(trace(engine))
    assert not model.functions
    assert {(node.domain, node.op_type) for node in model.graph.node} <= {("", name) for name in LISTED}
    readers = {node.op_type for node in model.graph.node if "image" in node.input}
    assert readers <= {"Cast", "Shape"}  # TensorRT has UINT8 as a type of inputs alone
