"""Exported graphs have no operator that TensorRT does not list; it was not run here.

The list: https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/docs/operators.md, those with Y, of commit 96e7811.
"""

import pytest
import torch

from support.configs import CONF
from uniad_lightning.exporting.graph import trace
from uniad_lightning.exporting.onnx_model import to_onnx
from uniad_lightning.inspection.engines.checkpoint import load_engine

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


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_operator_is_listed(method, tree, uniad, tmp_path):
    words = ["experiment=demo", "data=mvtec", f"data.root={tree}", "data.num_workers=0", "trainer.max_epochs=1"]
    status, _, err = uniad("train", *words, f"model={method}", f"output_dir={tmp_path}")
    assert status == 0, err
    engine = load_engine(str(tmp_path / "checkpoints/last.ckpt"), torch.device("cpu"))
    assert (method in NOT_EXPORTED) == (not engine.module.precisions)
    if method in NOT_EXPORTED:
        return
    model = to_onnx(trace(engine))
    assert not model.functions
    assert {(node.domain, node.op_type) for node in model.graph.node} <= {("", name) for name in LISTED}
    readers = {node.op_type for node in model.graph.node if "image" in node.input}
    assert readers <= {"Cast", "Shape"}  # TensorRT has UINT8 as a type of inputs alone
