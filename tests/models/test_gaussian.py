"""The Gaussian of embeddings: shrunk as scikit-learn does, distances and contributions as rewritten."""

import numpy as np
import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.models.gaussian import Gaussian, ledoit_wolf


def rewritten(samples):
    """Ledoit and Wolf (2004), one sample at a time."""
    count, size = samples.shape
    centred = samples - samples.mean(axis=0)
    covariance = sum(np.outer(x, x) for x in centred) / count
    scale = np.trace(covariance) / size
    d2 = ((covariance - scale * np.eye(size)) ** 2).sum() / size
    b2 = sum(((np.outer(x, x) - covariance) ** 2).sum() / size for x in centred) / count**2
    b2 = min(b2, d2)
    return b2 / d2 * scale * np.eye(size) + (d2 - b2) / d2 * covariance


def drawn(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + rng.normal(size=size)


@pytest.mark.parametrize(("count", "size"), [(3, 7), (7, 7), (40, 7), (2000, 3)])
def test_the_covariance_is_that_of_a_rewrite(count, size):
    samples = drawn(count, size)
    found = ledoit_wolf(torch.from_numpy(samples)).numpy()
    assert np.allclose(found, rewritten(samples), rtol=1e-9, atol=1e-9 * abs(found).max())
    assert np.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize(("count", "size"), [(3, 7), (40, 7), (2000, 3)])
def test_the_covariance_is_that_of_scikit_learn(count, size):
    sklearn = pytest.importorskip("sklearn.covariance")
    samples = drawn(count, size)
    assert np.allclose(ledoit_wolf(torch.from_numpy(samples)).numpy(), sklearn.ledoit_wolf(samples)[0], rtol=1e-7)


@pytest.fixture
def fitted():
    samples = drawn(30, 6).astype(np.float32)
    gaussian = Gaussian(channels=6)
    gaussian.fit(torch.from_numpy(samples))
    return gaussian, samples


def test_distances_and_contributions_are_those_of_a_rewrite(fitted):
    gaussian, samples = fitted
    features = torch.randn(4, 6, 3, 5, generator=torch.Generator().manual_seed(1))
    inverse, mean = np.linalg.inv(rewritten(samples.astype(np.float64))), samples.astype(np.float64).mean(axis=0)
    for one, distance, parts in zip(features, gaussian(features), gaussian.contributions(features), strict=True):
        apart = one.double().numpy().mean(axis=(1, 2)) - mean
        assert float(distance) == pytest.approx(np.sqrt(apart @ inverse @ apart), rel=1e-4)
        for y, x in np.ndindex(3, 5):
            cell = one[:, y, x].double().numpy() - mean
            assert float(parts[y, x]) == pytest.approx(cell @ inverse @ apart, rel=1e-3, abs=1e-3)
        assert float(parts.mean()) == pytest.approx(float(distance) ** 2, rel=1e-4)


def test_contributions_are_grad_cam_of_the_squared_distance(fitted):
    gaussian, _ = fitted
    features = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
    gaussian(features).square().sum().backward()
    weights = features.grad.mean(dim=(2, 3), keepdim=True)  # of each channel, Selvaraju et al. 2017, Eq. 1
    cam = (weights * (features - gaussian.mean[:, None, None])).sum(dim=1)  # Eq. 2, from the mean, without ReLU
    assert torch.allclose(gaussian.contributions(features), cam * 15 / 2, rtol=1e-3, atol=1e-3)


def test_the_mean_is_at_distance_zero_and_its_own_samples_at_about_the_root_of_their_dimension():
    samples = torch.from_numpy(drawn(5000, 6).astype(np.float32))
    gaussian = Gaussian(channels=6)
    gaussian.fit(samples)
    assert float(gaussian(gaussian.mean[None, :, None, None].expand(1, 6, 2, 2))) == pytest.approx(0, abs=1e-5)
    squares = gaussian(samples[:, :, None, None]).square()
    assert float(squares.mean()) == pytest.approx(6, rel=0.05)


def test_what_has_no_covariance_is_refused():
    with pytest.raises(InputError, match="train images are 2, too few for a covariance; expected at least 3"):
        Gaussian(channels=3).fit(torch.rand(2, 3))
    with pytest.raises(InputError, match="all train images have the same embedding"):
        Gaussian(channels=3).fit(torch.ones(5, 3))
    with pytest.raises(InputError, match="all train images have the same embedding"):
        Gaussian(channels=3).fit(torch.full((5, 3), float("nan")))
