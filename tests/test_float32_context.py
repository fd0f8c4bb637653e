"""What is computed in float32: no autocast, and no TF32 on a GPU."""

import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.precision import at_precision, in_float32


def test_convolutions_on_a_gpu_are_not_rounded_to_tf32_within_it_and_the_setting_comes_back():
    assert torch.backends.cudnn.allow_tf32
    with in_float32(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
        with in_float32(torch.device("cuda", 1)):
            assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), in_float32(torch.device("cuda")):
        raise ZeroDivisionError
    assert torch.backends.cudnn.allow_tf32


def test_a_cpu_is_left_as_it_is_but_for_autocast():
    with torch.autocast("cpu", torch.bfloat16), in_float32(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_lower_precision_of_inference_goes_through_all_that_is_float32_otherwise(precision, dtype):
    cpu = torch.device("cpu")
    with at_precision(cpu, precision), in_float32(cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16), in_float32(cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_another_precision_is_an_error_that_names_those_there_are():
    with pytest.raises(InputError, match="precision=int8: expected fp32, bf16, fp16"), at_precision("cpu", "int8"):
        pass
