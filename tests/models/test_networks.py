"""Invariants of the reconstruction network, and independent rewrites of its parts."""

import pytest
import torch
from torch import nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.kernels import dropout
from uniad_lightning.models.kernels.dropout import Dropout, scaled_dot_product_attention
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.neighbor_mask import neighbor_mask
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.layers.transformer import Attention, PositionEmbedding
from uniad_lightning.models.losses import CosineLoss, MSELoss, NormalizedMSELoss, RelativeMSELoss
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.randomness import seed_step


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


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_dropout_drops_the_share_it_says_and_preserves_the_mean(p):
    torch.manual_seed(0)
    x = torch.rand(401, 1003) + 1
    y = Dropout(p)(x)
    kept = y != 0
    assert abs(kept.double().mean().item() - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    assert torch.allclose(y[kept], x[kept] / (1 - p), rtol=2e-4)  # p has 16 bits
    assert abs(y.mean().item() / x.mean().item() - 1) < 5 * (p / (1 - p) / x.numel()) ** 0.5


def test_dropout_draws_each_element_for_itself():
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(1, 2**20)) != 0).double().flatten()
    kept -= kept.mean()
    for lag in (1, 2, 3, 4, 8):  # one draw of the generator serves four elements
        assert abs((kept[lag:] * kept[:-lag]).mean().item() / kept.square().mean().item()) < 5 / 2**10


def test_dropout_follows_torchs_seed_and_is_off_in_evaluation_and_at_0():
    x, layer = torch.rand(3, 5, 7), Dropout(0.4)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn += [layer(x), layer(x)]
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[4])
    state = torch.get_rng_state()
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def attention_input(n=16, **kind):
    """Query, shared by two images, key and value: (2, 3, n, 4)."""
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 3, n, 4), torch.randn(2, 3, n, 4), torch.randn(2, 3, n, 4)
    return [x.to(**kind).requires_grad_() for x in (query, key, value)]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("at_once", [1, 2 * 16 * 16, 2**19])
def test_attention_with_dropout_equals_its_formula_in_output_and_gradients(masked, at_once, monkeypatch):
    monkeypatch.setattr(dropout, "WEIGHTS_IN_CACHE", at_once)
    visible = ~neighbor_mask((4, 4), (3, 3)) if masked else None
    query, key, value = attention_input(dtype=torch.float64)
    torch.manual_seed(5)
    kept = dropout._draw_kept(torch.Size((2, 3, 16, 16)), 0.25)
    scores = query @ key.transpose(-1, -2) / 4**0.5
    scores = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
    expected = (scores.softmax(-1) * kept / 0.75) @ value
    torch.manual_seed(5)
    found = scaled_dot_product_attention(query.expand_as(key), key, value, attn_mask=visible, dropout_p=0.25)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn(2, 3, 16, 4, dtype=torch.float64)
    theirs = torch.autograd.grad((expected * weight).sum(), (query, key, value))
    ours = torch.autograd.grad((found * weight).sum(), (query, key, value))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_attention_with_dropout_is_right_on_average_and_follows_torchs_seed():
    visible = ~neighbor_mask((4, 4), (3, 3))
    query, key, value = (x.detach().expand(2, -1, -1, -1) for x in attention_input())
    exact = scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=0.0)
    drawn = torch.stack(
        [scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=0.1) for _ in range(2000)]
    )
    error = drawn.mean(0) - exact
    assert (error.abs() < 6 * drawn.std(0) / 2000**0.5).all()
    assert drawn.std(0).min() > 0
    again = []
    for _ in range(2):
        torch.manual_seed(3)
        again.append(scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=0.1))
    assert torch.equal(*again)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_attention_with_dropout_keeps_the_precision_it_is_given(kind):
    query, key, value = attention_input(dtype=kind)
    found = scaled_dot_product_attention(query.expand_as(key), key, value, attn_mask=None, dropout_p=0.1)
    assert found.dtype == kind
    found.sum().backward()
    assert value.grad.dtype == kind


def test_a_training_step_follows_torchs_seed_also_in_mixed_precision():
    tokens = torch.rand(2, 24, 10)
    torch.manual_seed(0)
    net = network()
    gradients = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        net.zero_grad()
        MSELoss()(tokens, net(tokens)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])
    torch.manual_seed(1)
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = MSELoss()(tokens, net(tokens).float())
    loss.backward()
    mixed = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert torch.nn.functional.cosine_similarity(mixed, gradients[0], dim=0) > 0.99


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
        ({"num_decoder_layers": -1}, "num_decoder_layers"),
        ({"num_encoder_layers": 0, "num_decoder_layers": 0}, "num_decoder_layers"),
        ({"decoder": "g"}, "decoder"),
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


@pytest.mark.parametrize("per", ["batch", "token"])
@pytest.mark.parametrize("world", [2, 3])
def test_what_is_drawn_for_a_sample_is_the_same_on_any_number_of_processes(per, world):
    x = torch.randn(6, 2, 9, 4)

    def drawn(part, rank):
        seed_step(seed=1, epoch=2, step=3, rank=rank)
        jitter = FeatureJitter(scale=20.0, prob=0.5, per=per)
        return (
            jitter(part.flatten(1, 2)),
            Dropout(0.4)(part),
            scaled_dot_product_attention(part, part, part, attn_mask=None, dropout_p=0.4),
            torch.rand(()),  # all have drawn equally often
        )

    whole = drawn(x, 0)
    parts = [drawn(part, rank) for rank, part in enumerate(x.chunk(world))]
    for one, *others in zip(whole, *parts, strict=True):
        together = torch.cat(others) if one.ndim else torch.stack(others).unique().squeeze()
        assert torch.allclose(one, together, atol=1e-6)
    assert not torch.equal(whole[1][0] == 0, whole[1][1] == 0)


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


@pytest.mark.parametrize("loss", [MSELoss(), NormalizedMSELoss(), CosineLoss(), RelativeMSELoss()])
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
    assert RelativeMSELoss()(f, r) == MSELoss()(f, r)
    distance, length = (f - r).norm(dim=-1), f.norm(dim=-1)
    mean = (distance * (distance / length).clamp(max=1)).sqrt()
    assert (distance > length).any()
    assert (distance < length).any()
    assert torch.allclose(RelativeMSELoss().anomaly_map(f, r), mean, rtol=1e-5)
    assert CosineLoss()(f, r).item() == pytest.approx(1 - (unit_f * unit_r).sum(-1).mean().item(), rel=1e-5)
