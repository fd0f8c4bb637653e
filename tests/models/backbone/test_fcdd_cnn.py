"""FCDD's own network: parameters and receptive field as published, outputs as rewritten, and it trains on CIFAR-10."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from support.trees import cifar10_python
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone


def network(weights="random"):
    torch.manual_seed(0)
    return Backbone(name="fcdd_cnn32", levels=[0], grid=[8, 8], weights=weights, trainable=True)


def test_parameters_are_those_of_the_reference_without_its_head_and_unused_norm():
    backbone = network()
    head, unused = 128 + 1, 2 * 128
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 1_185_537 - head - unused
    assert backbone.channels == [128]
    assert backbone.strides == [4]


def test_outputs_are_those_of_a_rewrite():
    backbone = network()
    for _ in range(2):  # batch statistics that are not those of the beginning
        backbone(torch.randn(8, 3, 32, 32))
    image = torch.randn(2, 3, 32, 32)
    values = {name.removeprefix("model."): value.double() for name, value in backbone.state_dict().items()}

    def stage(x, number):
        x = F.conv2d(x, values[f"conv{number}.weight"], values[f"conv{number}.bias"], padding=1)
        norm = {
            part: values[f"norm{number}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        }
        x = (x - norm["running_mean"]) / (norm["running_var"] + 1e-4).sqrt() * norm["weight"] + norm["bias"]
        return torch.where(x > 0, x, 0.01 * x)

    x = F.max_pool2d(stage(image.double(), 1), 2)
    x = F.max_pool2d(stage(stage(x, 2), 3), 2)
    expected = F.conv2d(x, values["conv4.weight"], values["conv4.bias"], padding=1)
    backbone.eval()
    with torch.no_grad():
        assert torch.allclose(backbone(image).double(), expected, atol=1e-5)
        backbone.requires_grad_(False)  # with the batch norms folded
        assert torch.allclose(backbone(image).double(), expected, atol=1e-5)


def test_a_cell_sees_22_pixels_around_its_middle():
    backbone = network().eval()
    for name in ("pool1", "pool2"):
        backbone.model.set_submodule(name, torch.nn.AvgPool2d(2))  # a maximum has a gradient in one pixel alone
    for part in backbone.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.constant_(part.weight, 1e-2)
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    backbone.grid = (16, 16)
    backbone(image)[0, :, 7, 8].sum().backward()
    rows, columns = np.nonzero(image.grad[0].abs().sum(0).numpy())
    assert (rows.min(), rows.max() + 1 - rows.min()) == (7 * 4 + 2 - 11, 22)
    assert (columns.min(), columns.max() + 1 - columns.min()) == (8 * 4 + 2 - 11, 22)


def test_it_has_no_weights_to_ask_for():
    with pytest.raises(InputError, match="timm has no weights for fcdd_cnn32; .* or random"):
        network("pretrained")


@pytest.mark.slow
def test_the_experiment_trains_fcdd_oe_on_cifar_10(uniad, tmp_path):
    root = cifar10_python(tmp_path / "cifar")
    words = [f"data.root={root}", "data.normal_classes=02468", f"model.outlier_exposure={root}", "trainer.max_epochs=2"]
    status, _, err = uniad(
        "train", "experiment=cifar10_fcdd", *words, "data.batch_size=20", "data.num_workers=0", "trainer=cpu",
        f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0, err
    assert "RANDOM WEIGHTS" not in err  # there are no others
    config = OmegaConf.load(tmp_path / "run/config.yaml")
    assert config.optimizer._target_ == "torch.optim.Adam"
    assert (config.data.image_size, config.trainer.max_epochs, config.model.field) == (32, 2, 22)
    status, _, err = uniad("evaluate", f"ckpt_path={tmp_path}/run", f"output_dir={tmp_path}/evaluate")
    assert status == 0, err
