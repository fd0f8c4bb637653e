"""model=anovit: the decoder's size, its map and score as a rewrite has them, pixels from -1 to 1."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.models.image_decoder import ImageDecoder


def test_the_decoder_has_the_published_size_and_enlarges_as_published():
    decoder = ImageDecoder(channels=768, image_size=(384, 384))
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 2_162_083
    for cells, expected in ((24, [26, 28, 30, 59, 117]), (14, [16, 18, 20, 39, 77])):
        features, sizes = torch.rand(1, 768, cells, cells), []
        for stage in decoder.stages:
            features = stage(features)
            sizes += [features.shape[-1]] if isinstance(stage, torch.nn.ConvTranspose2d) else []
        assert sizes == expected
    with torch.no_grad():
        image = decoder(torch.randn(2, 768, 5, 4))
    assert image.shape == (2, 3, 384, 384)
    assert image.abs().max() <= 1


def test_map_and_score_are_those_of_a_rewrite(tree, tmp_path):
    words = [*FEATURES, "model=anovit", "model.sigma=2", "trainer.max_epochs=1", f"data.root={tree}"]
    assert run_command("train", [*words, f"output_dir={tmp_path}/run"]) == 0
    module = Detector.load(tmp_path / "run").engine.module
    pixels = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    image = torch.from_numpy((pixels - np.array(module.mean)) / np.array(module.std)).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        batch = {"image": image}
        decoded = module.decoder(module.backbone(image))[0].permute(1, 2, 0).double().numpy()
        maps, scores = module.anomaly_map(batch), module.image_scores(batch, module.anomaly_map(batch))
    error = ((decoded - (2.0 * pixels - 1)) ** 2).mean(axis=2)
    assert np.allclose(maps[0].numpy(), gaussian_filter(error, 2.0), atol=1e-5)
    assert float(scores[0]) == pytest.approx(error.max(), rel=1e-4)


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=anovit", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=15", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["pixel_auroc"] > 0.6
