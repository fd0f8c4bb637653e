"""Invariants of the reconstruction network, and independent rewrites of its parts."""

import pytest
import torch
from torch import nn

from uniad_lightning.errors import InputError
from uniad_lightning.losses import CosineLoss, MSELoss, NormalizedMSELoss
from uniad_lightning.models.jitter import FeatureJitter
from uniad_lightning.models.neighbor_mask import neighbor_mask
from uniad_lightning.models.standardize import Standardize
from uniad_lightning.models.transformer import Attention, PositionEmbedding
from uniad_lightning.models.uniad import UniAD


def network(**changes):
    settings = {
        "channels": 10,
        "grid": [4, 6],
        "hidden_dim": 16,
        "num_heads": 4,
        "feedforward_dim": 32,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "dropout": 0.1,
        "neighbor_size": 3,
        "masked": [True, True, True],
        "jitter": FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    }
    return UniAD(**{**settings, **changes})


@pytest.mark.parametrize(
    ("grid", "window"), [((5, 5), (3, 3)), ((4, 7), (1, 5)), ((14, 14), (13, 13)), ((3, 9), (3, 7))]
)
def test_mask_blocks_exactly_the_window(grid, window):
    mask = neighbor_mask(grid, window)
    h, w = grid
    for i in range(h * w):
        for j in range(h * w):
            near = abs(i // w - j // w) <= window[0] // 2 and abs(i % w - j % w) <= window[1] // 2
            assert mask[i, j].item() == near
    assert torch.equal(mask, mask.T)
    assert not mask.all(dim=1).any()


@pytest.mark.parametrize(
    ("grid", "window", "said"),
    [
        ((14, 14), (15, 15), "largest legal square window is 13"),
        ((7, 7), (7, 7), "window is 5"),
        ((8, 8), (4, 3), "height 4"),
        ((8, 8), (3, -1), "width -1"),
    ],
)
def test_illegal_windows_are_refused(grid, window, said):
    with pytest.raises(InputError, match=said):
        neighbor_mask(grid, window)


def test_attention_equals_torchs_own():
    torch.manual_seed(0)
    blocked = neighbor_mask((4, 4), (3, 3))
    ours = Attention(dim=16, num_heads=4, dropout=0.0, blocked=blocked).eval()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict({n: p for n, p in ours.state_dict().items()})
    query, source, position = torch.randn(3, 16, 16), torch.randn(3, 16, 16), torch.randn(16, 16)
    expected, _ = theirs(query + position, source + position, source, attn_mask=blocked)
    assert torch.allclose(ours(query, source, position), expected, atol=1e-6)


def test_a_masked_token_has_no_part_in_the_answer():
    torch.manual_seed(0)
    attention = Attention(dim=16, num_heads=4, dropout=0.0, blocked=neighbor_mask((4, 4), (3, 3)))
    source = torch.randn(1, 16, 16, requires_grad=True)
    attention(torch.randn(1, 16, 16), source, torch.randn(16, 16))[0, 5].sum().backward()
    reached = source.grad[0].abs().sum(dim=1) > 0
    assert torch.equal(~reached, neighbor_mask((4, 4), (3, 3))[5])


def test_position_is_column_half_then_row_half():
    position = PositionEmbedding(grid=(2, 3), dim=4)
    tokens = position()
    assert tokens.shape == (6, 4)
    assert torch.equal(tokens[4], torch.cat([position.column[1], position.row[1]]))


def test_the_papers_network_has_the_reference_number_of_parameters():
    paper = network(
        channels=272, grid=[14, 14], hidden_dim=256, num_heads=8, feedforward_dim=1024, num_encoder_layers=4,
        num_decoder_layers=4, neighbor_size=7,
    )  # fmt: skip
    assert sum(p.numel() for p in paper.parameters() if p.requires_grad) == 7_717_392


def test_training_draws_and_evaluation_does_not():
    torch.manual_seed(0)
    net, tokens = network(), torch.randn(2, 24, 10)
    assert not torch.equal(net(tokens), net(tokens))
    net.eval()
    assert torch.equal(net(tokens), net(tokens))


def test_masked_says_which_attentions_look_everywhere():
    seen = {
        name: module.visible is None
        for name, module in network(masked=[False, True, False]).named_modules()
        if isinstance(module, Attention)
    }
    assert {name for name, full in seen.items() if full} == {
        name for name in seen if ".encoder." in name or "previous" in name
    }
    assert any("encoded" in name for name, full in seen.items() if not full)


def test_layers_start_independent_or_alike():
    ours, theirs = network(), network(shared_queries=True)
    assert not torch.equal(ours.transformer.decoder[0].query, ours.transformer.decoder[1].query)
    assert torch.equal(theirs.transformer.decoder[0].query, theirs.transformer.decoder[1].query)
    first, second = (layer.attention.in_proj_weight for layer in theirs.transformer.encoder)
    assert torch.equal(first, second)
    assert first is not second


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"hidden_dim": 15}, "hidden_dim"),
        ({"hidden_dim": 18}, "num_heads"),
        ({"masked": [True, True]}, "masked"),
        ({"grid": [4, 0]}, "grid"),
        ({"neighbor_size": [3, 3, 3]}, "neighbor_size"),
        ({"num_decoder_layers": 0}, "num_decoder_layers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_key(changes, key):
    with pytest.raises(InputError, match=key):
        network(**changes)


def test_jitter_has_the_deviation_of_equation_3():
    torch.manual_seed(0)
    tokens = torch.rand(4, 500, 64) * torch.rand(4, 500, 1) * 9
    noise = FeatureJitter(scale=20.0, prob=1.0, per="batch")(tokens) - tokens
    expected = 20 * tokens.norm(dim=-1) / 64
    ratio = noise.square().mean(dim=-1).sqrt() / expected
    assert abs(ratio.mean().item() - 1) < 0.01
    assert abs(noise.mean().item()) < 0.1 * expected.mean().item()


def test_jitter_probability_is_per_batch_or_per_token():
    torch.manual_seed(0)
    tokens = torch.rand(2, 400, 8)
    per_token = FeatureJitter(scale=5.0, prob=0.25, per="token")
    share = ((per_token(tokens) != tokens).any(dim=-1)).float().mean().item()
    assert abs(share - 0.25) < 0.05
    per_batch = FeatureJitter(scale=5.0, prob=0.25, per="batch")
    shares = [((per_batch(tokens) != tokens).any(dim=-1)).float().mean().item() for _ in range(200)]
    assert set(shares) == {0.0, 1.0}
    assert abs(sum(shares) / 200 - 0.25) < 0.1
    assert torch.equal(per_batch.eval()(tokens), tokens)
    assert torch.equal(FeatureJitter(scale=0.0, prob=1.0, per="batch")(tokens), tokens)


@pytest.mark.parametrize("bad", [{"scale": -1.0}, {"prob": 1.5}, {"per": "pixel"}])
def test_jitter_refuses(bad):
    with pytest.raises(InputError, match=f"jitter.{next(iter(bad))}"):
        FeatureJitter(**{"scale": 20.0, "prob": 1.0, "per": "batch", **bad})


def test_standardised_features_have_mean_0_and_deviation_1_and_travel_in_the_state():
    torch.manual_seed(0)
    tokens = torch.randn(6, 50, 4) * torch.tensor([3.0, 0.1, 40.0, 0.0]) + torch.tensor([1.0, -2.0, 30.0, 5.0])
    standardize = Standardize(channels=4)
    assert torch.equal(standardize(tokens), tokens)
    standardize.fit(tokens.split(2))
    flat = standardize(tokens).flatten(0, 1)
    assert flat.mean(0).abs().max() < 1e-4
    assert torch.allclose(flat.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4)
    copy = Standardize(channels=4)
    copy.load_state_dict(standardize.state_dict())
    assert copy.fitted
    assert torch.equal(copy(tokens), standardize(tokens))


@pytest.mark.parametrize("loss", [MSELoss(), NormalizedMSELoss(), CosineLoss()])
def test_loss_and_map_vanish_where_the_reconstruction_is_the_feature(loss):
    torch.manual_seed(0)
    feature = torch.randn(2, 9, 5)
    other = feature.clone()
    other[0, 3] += torch.randn(5)
    maps = loss.anomaly_map(feature, other)
    assert maps.shape == (2, 9)
    assert maps[0, 3] == maps.max()
    maps[0, 3] = 0
    assert maps.abs().max() < 1e-5
    assert loss(feature, feature).item() < 1e-6 < loss(feature, other).item()


def test_losses_are_the_papers_formulas():
    torch.manual_seed(0)
    f, r = torch.randn(2, 9, 5), torch.randn(2, 9, 5)
    assert MSELoss()(f, r).item() == pytest.approx(((f - r) ** 2).sum(-1).mean().item() / 5)
    unit_f, unit_r = f / f.norm(dim=-1, keepdim=True), r / r.norm(dim=-1, keepdim=True)
    assert NormalizedMSELoss()(f, r).item() == pytest.approx(((unit_f - unit_r) ** 2).sum(-1).mean().item(), rel=1e-5)
    assert CosineLoss()(f, r).item() == pytest.approx(1 - (unit_f * unit_r).sum(-1).mean().item(), rel=1e-5)
