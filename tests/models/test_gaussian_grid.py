"""The grid of Gaussians: covariances as NumPy's, sums that merge, distances as SciPy's, and its exported graph."""

import copy
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch.export import Dim

from uniad_lightning.errors import InputError
from uniad_lightning.models.gaussian_grid import GaussianGrid

CHANNELS, GRID, DIM = 9, (3, 4), 5
MIXING = torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(1))
SUMS = ("count", "total", "products")


def images(count, seed=0, offset=2.0):
    features = torch.randn(count, CHANNELS, *GRID, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("nchw,dc->ndhw", features, MIXING) + offset


def started(**settings):
    given = {"channels": CHANNELS, "grid": GRID, "dim": DIM, "regularization": 0.01, "seed": 0, "megabytes": 16}
    return GaussianGrid(**given | settings)


def fitted(features, batch=7, **settings):
    gaussians = started(**settings)
    for part in features.split(batch):
        gaussians.update(part)
    gaussians.finish()
    return gaussians


def covariances(gaussians):
    """From the whitening alone: (P, D, D)."""
    return torch.linalg.inv(gaussians.whitening.double().mT @ gaussians.whitening.double())


def numpys(features, gaussians, place):
    """What NumPy says of the Gaussian at a place: mean and regularised covariance."""
    values = features.double()[:, gaussians.channels].flatten(2)[:, :, place].numpy()
    return values.mean(axis=0), np.cov(values, rowvar=False) + 0.01 * np.eye(values.shape[1])


@pytest.mark.parametrize("megabytes", [1e-6, 0.004, 16])
@pytest.mark.parametrize("offset", [0, 2, 1000])
def test_means_and_covariances_are_those_of_numpy(offset, megabytes):
    features = images(50, offset=offset)
    gaussians = fitted(features, megabytes=megabytes)
    for place in range(12):
        mean, covariance = numpys(features, gaussians, place)
        assert np.allclose(gaussians.mean[place], mean, rtol=1e-6, atol=1e-6)
        assert np.allclose(covariances(gaussians)[place], covariance, rtol=1e-4, atol=1e-4)


def test_covariance_is_symmetric_and_no_eigenvalue_is_below_the_regularisation():
    gaussians = started()
    gaussians.update(images(4))  # rank 3 in 5 dimensions
    covariance = gaussians.covariance()
    assert covariance.shape == (12, DIM, DIM)
    assert torch.allclose(covariance, covariance.mT, rtol=0, atol=1e-12)
    values = torch.linalg.eigvalsh(covariance)
    assert values.min() >= 0.01 - 1e-10
    assert torch.allclose(values[:, :2], torch.full((12, 2), 0.01, dtype=torch.float64), atol=1e-9)
    assert (values[:, 2:] > 0.011).all()


def test_distance_is_that_of_scipy_and_none_at_the_mean():
    features, other = images(30), images(3, seed=5)
    gaussians = fitted(features)
    found = gaussians(other)
    assert found.shape == (3, *GRID)
    for place in range(12):
        mean, covariance = numpys(features, gaussians, place)
        for image in range(3):
            value = other[image, gaussians.channels].flatten(1)[:, place].double().numpy()
            expected = mahalanobis(value, mean, np.linalg.inv(covariance))
            assert found[image].flatten()[place] == pytest.approx(expected, rel=1e-4)
    at_mean = torch.zeros(1, CHANNELS, *GRID)
    at_mean[:, gaussians.channels] = gaussians.mean.T.unflatten(1, GRID)
    assert gaussians(at_mean).max() == 0


def test_mean_squared_distance_of_many_train_images_is_the_dimension():
    features = images(2000)
    squared = fitted(features, regularization=1e-8)(features).square().mean(dim=0)
    assert torch.allclose(squared, torch.full(GRID, float(DIM)), rtol=2e-3)


def test_sums_of_two_halves_are_those_of_the_whole():
    features = images(31)
    whole, first, second = started(), started(), started()
    whole.update(features)
    first.update(features[:20])
    second.update(features[20:])
    for name in SUMS:
        getattr(first, name).add_(getattr(second, name))
        assert torch.allclose(getattr(first, name), getattr(whole, name), rtol=1e-12)
    for gaussians in (whole, first):
        gaussians.finish()
    assert torch.allclose(first.mean, whole.mean)
    assert torch.allclose(first.whitening, whole.whitening, rtol=1e-5, atol=1e-6)


def test_sums_do_not_grow_with_the_images_and_go_when_it_is_finished():
    gaussians = started()
    gaussians.update(images(3))
    sizes = [getattr(gaussians, name).numel() for name in SUMS]
    gaussians.update(images(40))
    assert sizes == [getattr(gaussians, name).numel() for name in SUMS] == [1, 12 * DIM, 12 * DIM**2]
    gaussians.finish()
    assert [getattr(gaussians, name).numel() for name in SUMS] == [1, 0, 0]
    assert set(gaussians.state_dict()) == {"channels", "mean", "whitening"}


def test_fitting_again_begins_anew():
    gaussians = fitted(images(20))
    gaussians.update(images(10, seed=3))
    gaussians.finish()
    assert torch.equal(gaussians.whitening, fitted(images(10, seed=3), batch=10).whitening)


@pytest.mark.parametrize("seed", [0, 1])
def test_channels_are_drawn_by_the_seed_alone_and_the_rest_do_not_matter(seed):
    torch.manual_seed(9)
    gaussians = fitted(images(20), seed=seed)
    assert torch.equal(gaussians.channels, started(seed=seed).channels)
    assert len(gaussians.channels.unique()) == DIM
    assert not torch.equal(started(seed=0).channels, started(seed=1).channels)
    unused = sorted(set(range(CHANNELS)) - set(gaussians.channels.tolist()))
    other = images(2, seed=4)
    changed = other.clone()
    changed[:, unused] = 100
    assert torch.equal(gaussians(other), gaussians(changed))


def test_a_fitted_state_loads_strictly_with_its_channels_also_over_another():
    gaussians, other = fitted(images(20)), images(3, seed=8)
    saved = torch.nn.ModuleDict({"network": gaussians}).state_dict()
    for fresh in (started(seed=1), fitted(images(9), seed=2), copy.deepcopy(started(seed=3))):
        torch.nn.ModuleDict({"network": fresh}).load_state_dict(saved)
        assert torch.equal(fresh(other), gaussians(other))
    unfitted = fitted(images(9))
    unfitted.load_state_dict(started().state_dict())
    with pytest.raises(InputError, match="fit the detector first"):
        unfitted(other)


@pytest.mark.parametrize("wrong", [{"grid": (4, 4)}, {"dim": 4}], ids=str)
def test_states_of_other_sizes_are_refused(wrong):
    with pytest.raises(RuntimeError, match="size mismatch for"):
        started(**wrong).load_state_dict(fitted(images(20)).state_dict())


def test_parameters_are_counted_as_in_table_a7_without_making_them():
    wide = GaussianGrid(channels=1792, grid=56, dim=550, regularization=0.01, seed=0, megabytes=64)
    small = GaussianGrid(channels=448, grid=56, dim=100, regularization=0.01, seed=0, megabytes=64)
    assert (wide.num_parameters, small.num_parameters) == (950_364_800, 31_673_600)
    gaussians = fitted(images(9))
    assert gaussians.num_parameters == gaussians.mean.numel() + gaussians.whitening.numel()
    assert sum(value.numel() for value in wide.buffers()) < 1000


def test_mistakes_are_refused_in_one_line():
    with pytest.raises(InputError, match="fit the detector first"):
        started()(images(2))
    single = started()
    single.update(images(1))
    with pytest.raises(InputError, match=r"^1 train images .* at least 2$"):
        single.finish()
    with pytest.raises(InputError, match=r"\(3, 5\) cells; expected model\.grid=\[3, 4\]"):
        started().update(torch.zeros(2, CHANNELS, 3, 5))
    for wrong in ({"dim": 10}, {"dim": 0}, {"regularization": 0}, {"megabytes": 0}):
        (name,) = wrong
        with pytest.raises(InputError, match=rf"^model\.{name}=[^\n]*$"):
            started(**wrong)


def test_the_exported_graph_agrees_at_any_batch(tmp_path):
    gaussians = fitted(images(20)).eval()
    program = torch.export.export(gaussians, (images(2),), dynamic_shapes=({0: Dim("batch", min=1)},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(program, (), tmp_path / "grid.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "grid.onnx", providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    for batch in (1, 2, 5):
        features = images(batch, seed=batch)
        expected = gaussians(features)
        (theirs,) = session.run(None, {name: features.numpy()})
        assert torch.allclose(expected, program.module()(features), atol=1e-5)
        assert np.allclose(expected, theirs, atol=1e-5)
