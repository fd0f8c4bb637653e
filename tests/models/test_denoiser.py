"""The denoiser: attention without a softmax, noise in training alone, and residuals that tell what is rare."""

import pytest
import torch
from torch.nn.functional import elu

from uniad_lightning.errors import InputError
from uniad_lightning.models.denoiser import Denoiser, LinearAttention
from uniad_lightning.models.layers.jitter import FeatureJitter


def denoiser(**changes):
    settings = {
        "channels": 10,
        "grid": [3, 4],
        "hidden_dim": 16,
        "num_heads": 4,
        "feedforward_dim": 32,
        "num_layers": 2,
        "jitter": FeatureJitter(scale=5.0, prob=1.0, per="batch"),
    }
    return Denoiser(**{**settings, **changes})


def test_linear_attention_is_the_weighted_mean_of_its_formula():
    torch.manual_seed(0)
    attention = LinearAttention(8, 2)
    x = torch.randn(2, 5, 8)
    found = attention(x)
    q, k, v = (part.unflatten(-1, (2, 4)) for part in attention.qkv(x).chunk(3, -1))  # (B, N, heads, 4)
    expected = torch.zeros(2, 5, 2, 4)
    for b in range(2):
        for head in range(2):
            for i in range(5):
                weights = torch.stack([(elu(q[b, i, head]) + 1) @ (elu(k[b, j, head]) + 1) for j in range(5)])
                expected[b, i, head] = (weights / weights.sum()) @ v[b, :, head]
    assert torch.allclose(found, attention.out(expected.flatten(2)), atol=1e-5)


def test_noise_is_added_in_training_alone():
    torch.manual_seed(0)
    network, tokens = denoiser(), torch.randn(2, 12, 10)
    assert not torch.equal(network(tokens), network(tokens))
    network.eval()
    assert torch.equal(network(tokens), network(tokens))
    assert network(tokens).shape == tokens.shape


def test_every_weight_learns():
    torch.manual_seed(0)
    network = denoiser()
    network(torch.randn(2, 12, 10)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_places_differ_by_their_position_alone():
    network = denoiser().eval()
    tokens, turned = torch.randn(1, 12, 10), torch.randperm(12)
    assert not torch.allclose(network(tokens)[:, turned], network(tokens[:, turned]), atol=1e-4)
    torch.nn.init.zeros_(network.position)
    assert torch.allclose(network(tokens)[:, turned], network(tokens[:, turned]), atol=1e-5)


def test_it_changes_what_is_rare_more_than_what_is_frequent():
    """Good tokens lie on a curve; it learns the curve, and others are moved towards it."""
    torch.manual_seed(0)
    network = denoiser(hidden_dim=32, feedforward_dim=64, jitter=FeatureJitter(scale=1.0, prob=1.0, per="batch"))

    plane = torch.randn(2, 10)

    def good(count):
        angle = 6.28 * torch.rand(count, 12, 1)
        return torch.cat([angle.cos(), angle.sin()], -1) @ plane

    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(300):
        tokens = good(16)
        optimizer.zero_grad()
        (network(tokens) - tokens).square().mean().backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        near, far = good(50), 0.5 * good(50)  # inside the curve, where there is none
        moved = [(network(tokens) - tokens).norm(dim=-1).flatten() for tokens in (near, far)]
    assert moved[0].quantile(0.9) < moved[1].quantile(0.1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_dim": 18}, "model.hidden_dim=18 is no multiple of model.num_heads=4"),
        ({"num_layers": 0}, "model.num_layers=0: expected a whole number of at least 1"),
        ({"feedforward_dim": 1.5}, "model.feedforward_dim=1.5: expected a whole number"),
        ({"num_heads": True}, "model.num_heads=True: expected a whole number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        denoiser(**changes)


def test_attention_stays_finite_in_float16_on_a_fine_grid():
    torch.manual_seed(0)
    attention, x = LinearAttention(64, 2), 30 * torch.randn(1, 56 * 56, 64)
    exact, half = attention(x), attention.half()(x.half())
    assert half.isfinite().all()
    assert torch.allclose(half.float(), exact, atol=0.02 * exact.abs().max().item())
