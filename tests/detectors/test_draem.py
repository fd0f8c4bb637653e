"""model=draem: networks of the published size, losses as independent rewrites have them, what it refuses."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from uniad_lightning.detectors.draem import DRAEM, focal_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.draem import DiscriminativeNetwork, ReconstructiveNetwork
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.scoring import ImageScore


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def detector(**more):
    return DRAEM(
        score=ImageScore(kind="max", window=1), optimizer=torch.optim.Adam, schedule=None, seed=0,
        **{"reconstructive_width": 4, "discriminative_width": 4, "focal_gamma": 2.0, **more},
    )  # fmt: skip


def test_parameters_are_those_of_the_published_networks():
    with torch.device("meta"):
        assert count(ReconstructiveNetwork(channels=3, width=128)) == 69_048_579  # Table A7 counts this one
        assert count(DiscriminativeNetwork(channels=6, width=64)) == 28_374_146


def test_the_map_is_a_probability_at_each_pixel():
    module = detector().eval()
    maps = module.anomaly_map({"image": torch.rand(2, 3, 64, 96)})
    assert maps.shape == (2, 64, 96)
    assert ((maps >= 0) & (maps <= 1)).all()
    with torch.no_grad():
        module.discriminate.last.weight.zero_()
        module.discriminate.last.bias.copy_(torch.tensor([0.0, 1.0]))
    certain = module.anomaly_map({"image": torch.rand(1, 3, 64, 64)})
    assert torch.allclose(certain, torch.tensor(np.e / (1 + np.e)).float())


def test_reconstruction_has_no_way_around_its_smallest_stage():
    network = ReconstructiveNetwork(channels=3, width=2).eval()
    with torch.no_grad():
        for parameter in network.encoder[-1].parameters():
            parameter.zero_()
    first, second = network(torch.rand(2, 3, 32, 32))
    assert torch.equal(first, second)


def test_similarity_is_that_of_a_rewrite():
    first, second = np.random.default_rng(0).random((2, 20, 17))
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(image):
        return correlate(image, window, mode="constant")

    a, b = mean(first), mean(second)
    expected = (2 * a * b + 0.01**2) * (2 * (mean(first * second) - a * b) + 0.03**2)
    expected /= (a**2 + b**2 + 0.01**2) * (mean(first**2) - a**2 + mean(second**2) - b**2 + 0.03**2)
    found = ssim(torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None])
    assert np.allclose(found[0, 0].numpy(), expected)
    same = torch.rand(1, 3, 16, 16)
    assert torch.allclose(ssim(same, same), torch.ones(1, 3, 16, 16), atol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_is_that_of_a_rewrite(gamma):
    generator = torch.Generator().manual_seed(0)
    scores, mask = torch.randn(2, 2, 5, 4, generator=generator), torch.rand(2, 5, 4, generator=generator) > 0.5
    total = 0.0
    for image, row, column in np.ndindex(2, 5, 4):
        good, bad = np.exp(scores[image, :, row, column].double().numpy())
        right = (bad if mask[image, row, column] else good) / (good + bad)
        total += -((1 - right) ** gamma) * np.log(right)
    assert float(focal_loss(scores, mask, gamma)) == pytest.approx(total / 40, rel=1e-5)


def test_mistakes_are_one_line(uniad, tree, tmp_path):
    for override, message in (
        ("data.image_size=72", "data.image_size=[72, 72]: DRAEM halves images five times; give multiples of 32"),
        ("model.focal_gamma=-1", "model.focal_gamma=-1: expected at least 0"),
        ("data.defects.textures=nowhere", "data.defects.textures=nowhere: is no folder; expected one of images"),
        ("data.defects.opacity=[0,2]", "data.defects.opacity=[0, 2]: expected [least, most]"),
        ("data.defects.share_good=1", "data.defects.share_good=1: expected a number from 0 to below 1"),
        ("data.defects=null", "data.defects=null: DRAEM learns from synthetic defects; give data/defects=perlin"),
    ):
        words = ["model=draem", "trainer=cpu", "data.image_size=64", "data.num_workers=0", "data.batch_size=4"]
        words += ["model.reconstructive_width=4", "model.discriminative_width=4", "trainer.max_epochs=1"]
        status, _, err = uniad("train", *words, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
        assert status == 2
        assert message in err
        assert "Traceback" not in err


def test_widths_are_checked():
    with pytest.raises(InputError, match="model.reconstructive_width=0: expected a whole number of at least 1"):
        detector(reconstructive_width=0)
