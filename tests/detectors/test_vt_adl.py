"""model=vt_adl: networks of the published size, likelihood, capsules, loss and map as rewrites have them."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from uniad_lightning.detectors.vt_adl import VTADL
from uniad_lightning.errors import InputError
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.models.vt_adl import Capsules, Decoder, MixtureDensity
from uniad_lightning.randomness import draw, seed_step

PUBLISHED = {"image_size": 512, "hidden_dim": 512, "num_heads": 8, "feedforward_dim": 1024, "num_layers": 6}
SMALL = {"image_size": 64, "hidden_dim": 16, "num_heads": 2, "feedforward_dim": 24, "num_layers": 2}


def detector(**more):
    torch.manual_seed(0)
    settings = {**SMALL, "gaussians": 10, "noise": 0.2, "sigma": 2.0, **more}
    return VTADL(optimizer=torch.optim.AdamW, schedule=None, seed=0, **settings)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_are_those_of_the_authors_code():
    with torch.device("meta"):
        module = detector(**PUBLISHED)
    assert count(module.transformer) == 18_933_248
    assert count(module.capsules) == 16_777_216
    assert count(module.decoder) == 142_099
    assert count(module.density) == 5_248_000
    assert count(module) == 41_100_563
    assert sum(map(count, module.parts().values())) == 41_100_563


def test_the_decoder_enlarges_as_published_and_stops_where_the_image_is_smaller():
    image, sides = torch.rand(2, 8, 8, 8), []
    for layer in Decoder(image_size=(512, 512)).layers:
        image = layer(image)
        sides += [image.shape[-1]] if isinstance(layer, torch.nn.ConvTranspose2d) else []
    assert sides == [15, 49, 245, 497, 502, 512]
    assert image.abs().max() <= 1
    for side, stages in ((15, 1), (64, 3), (245, 3), (256, 4)):
        decoder = Decoder(image_size=(side, side))
        assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in decoder.layers) == stages
        assert decoder(torch.rand(2, 512)).shape == (2, 3, side, side)


def test_capsules_are_what_three_routings_by_agreement_make():
    torch.manual_seed(0)
    capsules, tokens = Capsules(numbers=4 * 16), torch.randn(2, 4, 16)
    weight, inputs = capsules.weight.detach().double().numpy(), tokens.double().numpy().reshape(2, 8, 8)
    for b in range(2):
        votes = np.stack([weight[i] @ inputs[b, i] for i in range(8)])  # (8, 512)
        logits = np.zeros((1, 8))  # of the one capsule of the next layer
        for _ in range(3):
            shares = np.exp(logits) / np.exp(logits).sum(axis=0, keepdims=True)
            total = (shares[0][:, None] * votes).sum(axis=0)
            length = np.linalg.norm(total)
            made = length**2 / (1 + length**2) * total / length
            logits[0] += votes @ made
        assert np.allclose(capsules(tokens)[b].detach().numpy(), made, atol=1e-6)


def test_likelihood_is_that_of_a_mixture_of_gaussians():
    torch.manual_seed(0)
    density, tokens = MixtureDensity(dim=6, count=3), torch.randn(2, 4, 6)
    found = density(tokens).detach().numpy()
    pi, mu, spread = (
        part.weight.detach().double().numpy() for part in (density.weights, density.means, density.spreads)
    )
    for b, t in np.ndindex(2, 4):
        x = tokens[b, t].double().numpy()
        positive, terms = np.maximum(x, 0), []
        for k in range(3):
            variance = np.exp(np.log1p(np.exp(spread[6 * k : 6 * k + 6] @ positive)))
            assert (variance >= 1).all()
            mean = mu[6 * k : 6 * k + 6] @ positive
            normal = np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * math.pi * variance)
            terms.append(np.log(normal).sum() + (pi @ positive)[k] - logsumexp(pi @ positive))
        assert found[b, t] == pytest.approx(-logsumexp(terms), rel=1e-5)


def test_the_loss_is_the_sum_of_its_parts_of_noisy_tokens():
    module = detector()
    image = torch.rand(2, 3, 64, 64)
    seed_step(seed=0, epoch=0, step=0, rank=0)
    loss, parts = module.losses(image)
    seed_step(seed=0, epoch=0, step=0, rank=0)
    with torch.no_grad():
        tokens = module.encode(image) + 0.2 * draw(torch.randn, (2, 64, 16), torch.device("cpu"))
        decoded = module.decoder(module.capsules(tokens))
        nll = np.mean([module.density(tokens)[b].sum().item() for b in range(2)])
    expected = 5 * ((decoded - image) ** 2).mean().item() - 0.5 * ssim(decoded, image).mean().item() + nll
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert parts["nll"].item() == pytest.approx(nll, rel=1e-5)


def test_map_and_score_are_those_of_a_rewrite():
    module, image = detector().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = module.anomaly_map({"image": image})
        tokens = module.transformer(
            torch.stack(
                [image[0, :, y : y + 8, x : x + 8].flatten() for y in range(0, 64, 8) for x in range(0, 64, 8)]
            )[None]
        )
        cells = module.density(tokens)[0].view(8, 8).double().numpy()
    places = np.linspace(0, 7, 64)
    rows = np.stack([np.interp(places, range(8), column) for column in cells.T], axis=1)
    full = gaussian_filter(np.stack([np.interp(places, range(8), row) for row in rows]), 2.0)
    assert np.allclose(maps[0], full, rtol=1e-4)
    assert module.image_scores({"image": image}, maps).item() == pytest.approx(full.max(), rel=1e-4)


def test_tokens_have_no_noise_at_inference_and_the_place_of_a_patch_matters():
    module, image = detector().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(module.anomaly_map({"image": image}), module.anomaly_map({"image": image}))
        turned = module.density(module.encode(image.flip(3))).view(8, 8)
        assert not torch.allclose(module.density(module.encode(image)).view(8, 8), turned.flip(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": [64, 72]}, r"data.image_size=\[64, 72\]: VT-ADL takes squares"),
        ({"image_size": 1024}, r"data.image_size=\[1024, 1024\]: VT-ADL takes squares"),
        ({"hidden_dim": 17}, "model.hidden_dim=17: expected a multiple of model.num_heads=2"),
        ({"gaussians": 0}, "model.gaussians=0: expected a whole number of at least 1"),
        ({"noise": -1}, "model.noise=-1: expected at least 0"),
        ({"sigma": 100.0}, "model.sigma=100.0: reaches 400 pixels"),
    ],
)
def test_mistakes_are_one_line(change, message):
    with pytest.raises(InputError, match=message):
        detector(**change)


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=vt_adl", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=15", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["image_auroc"] > 0.75
    assert mean["pixel_auroc"] > 0.75
