"""Parameters and operations against numbers worked out by hand."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from support.settings import SMALL
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError
from uniad_lightning.models.cnn import CNN
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.paper.complexity import PAPER_FLOPS, PAPER_LEARNABLE, Part, count_complexity
from uniad_lightning.scoring import ImageScore
from uniad_lightning.training.build import build_module


class OneConvolution(nn.Module):
    """A backbone of 3 -> 5 channels and stride 8, of which all is known."""

    def __init__(self, trainable):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=8, padding=1).requires_grad_(trainable)
        self.channels, self.grid, self.trainable = [5], (4, 6), trainable
        self.mean = self.std = (0.5, 0.5, 0.5)

    def check(self, size):
        pass

    def forward(self, image):
        return self.conv(image)


def module(network, *, trainable=False, standardize=False):
    return FeatureReconstruction(
        backbone=OneConvolution(trainable), network=network, loss=MSELoss(), score=ImageScore(kind="max", window=4),
        optimizer=torch.optim.AdamW, schedule=None, seed=0, standardize=standardize,
    )  # fmt: skip


def uniad(**changes):
    settings = {
        "channels": 5, "grid": [4, 6], "hidden_dim": 8, "num_heads": 2, "feedforward_dim": 12, "num_encoder_layers": 2,
        "num_decoder_layers": 1, "dropout": 0.1, "neighbor_size": 3, "masked": [True] * 3,
        "jitter": FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    }  # fmt: skip
    return UniAD(**{**settings, **changes})


def uniad_flops(*, n, c, e, f, encoders, decoders):
    """A product of (a, b) with (b, d) is 2 a b d."""
    attention = 4 * 2 * n * e * e + 2 * 2 * n * n * e
    feedforward = 2 * 2 * n * e * f
    return 2 * 2 * n * c * e + encoders * (attention + feedforward) + decoders * (2 * attention + feedforward)


def test_a_small_detector_by_hand():
    found = count_complexity(module(uniad()), [32, 48])
    assert found.parts["backbone"] == Part(parameters=3 * 5 * 9 + 5, learnable=0, flops=2 * 27 * 5 * 24)
    flops = uniad_flops(n=24, c=5, e=8, f=12, encoders=2, decoders=1)
    assert flops == 2 * 2 * 24 * 40 + 4 * (12288 + 18432) + 3 * 9216
    attention, feedforward, norm = 4 * (64 + 8), 96 + 12 + 96 + 8, 16
    parameters = (
        (5 * 8 + 8) + (8 * 5 + 5) + (4 + 6) * 4 + norm
        + 2 * (attention + feedforward + 2 * norm)
        + (24 * 8 + 2 * attention + feedforward + 3 * norm)
    )  # fmt: skip
    assert found.parts["network"] == Part(parameters=parameters, learnable=parameters, flops=flops)
    assert found.total == Part(140 + parameters, parameters, 6480 + flops)


def test_training_or_not_masked_or_not_and_standardised_or_not_are_the_same():
    expected = count_complexity(module(uniad()), [32, 48])
    detector = module(uniad(masked=[False] * 3), standardize=True).train()
    state = torch.get_rng_state()
    assert count_complexity(detector, [32, 48]) == expected
    assert detector.training
    assert detector.network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_a_trained_backbone_counts_as_learnable():
    assert count_complexity(module(uniad(), trainable=True), [32, 48]).parts["backbone"].learnable == 140


def test_the_cnn_by_hand():
    n, e, h = 24, 8, 4
    first, third = 6 * e * e * 9, 12 * h * h * 9
    second, fourth = e * h * 9 + 7 * h * h * 9 + e * h, h * e * 9 + 5 * e * e * 9 + h * e
    found = count_complexity(module(CNN(channels=5, grid=[4, 6], hidden_dim=8)), [32, 48])
    assert found.parts["network"].flops == 2 * n * (2 * 5 * e + first + second + third + fourth)


def paper_detector(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["data.root=x", "backbone.weights=random", *overrides])
    return build_module(cfg, announce=False)


def test_the_papers_detector_beside_table_a7():
    detector = paper_detector()
    found = count_complexity(detector, 224)
    assert found.parts["network"].learnable == found.total.learnable == 7_717_392
    assert found.parts["network"].flops == uniad_flops(n=196, c=272, e=256, f=1024, encoders=4, decoders=4)
    assert found.parts["backbone"].parameters == sum(p.numel() for p in detector.backbone.parameters())
    assert abs(found.total.learnable / PAPER_LEARNABLE - 1) < 0.04
    assert 0.75 < found.total.flops / PAPER_FLOPS < 0.85  # without EfficientNet's last blocks


def test_an_image_the_backbone_does_not_take_is_refused():
    detector = paper_detector("backbone=tiny", "backbone.weights=random")
    with pytest.raises(InputError, match=r"data.image_size=4: resnet18 has a stride of 8"):
        count_complexity(detector, 4)
    with pytest.raises(InputError, match="data.image_size"):
        count_complexity(detector, [64, 0])


def test_the_command_prints_the_parts_beside_the_papers_numbers(uniad):
    status, out, err = uniad("complexity", *SMALL)
    assert status == 0, err
    rows = {line.split("│")[1].strip(): line.split("│")[2:5] for line in out.splitlines() if line.startswith("│")}
    assert rows["UniAD in Table A7"][1].strip() == "7,480,000"
    learnable = [int(rows[name][1].replace(",", "")) for name in ("backbone", "network", "total")]
    assert learnable[0] == 0
    assert learnable[1] == learnable[2] > 0


@pytest.mark.parametrize(
    ("words", "name", "part", "learnable", "paper"),
    [
        (["model=draem"], "DRAEM", "reconstructive", 69_048_579, "69,050,000"),
        (["model=fcdd", "backbone=timm", "backbone.name=vgg11_bn.tv_in1k", "backbone.levels=[3]"], "FCDD", "total",
         3_542_529, "4,510,000"),
        (["model=patch_svdd"], "PSVDD", "encoder", 401_984, "410,000"),
        (["model=mkd", "backbone=vgg16"], "MKD", "cloner", 343_984, "340,000"),
    ],
    ids=["draem", "fcdd", "patch_svdd", "mkd"],
)  # fmt: skip
@pytest.mark.slow
def test_a_competitor_is_printed_beside_its_own_numbers(uniad, words, name, part, learnable, paper):
    random = ["backbone.weights=random"] if len(words) > 1 else []
    status, out, err = uniad("complexity", *words, *random)
    assert status == 0, err
    rows = {line.split("│")[1].strip(): line.split("│")[2:5] for line in out.splitlines() if line.startswith("│")}
    assert int(rows[part][1].replace(",", "")) == learnable
    assert rows[f"{name} in Table A7"][1].strip() == paper
    assert "UniAD in Table A7" in rows
