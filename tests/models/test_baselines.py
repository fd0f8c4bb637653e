"""The reconstruction baselines of Fig. 2: what appendix B.1 says of them, and independent rewrites."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from uniad_lightning.errors import InputError
from uniad_lightning.models.cnn import CNN
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.transformer import Attention, PositionEmbedding
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.models.mlp import MLP
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.models.vanilla import VanillaTransformer

C, E, FF, GRID = 10, 16, 32, (3, 5)
N = GRID[0] * GRID[1]
LAYERS = {"feedforward_dim": FF, "num_encoder_layers": 2, "num_decoder_layers": 3, "dropout": 0.1}


def mlp(**changes):
    return MLP(**{"channels": C, "grid": GRID, "hidden_dim": E, **LAYERS, **changes})


def cnn(**changes):
    return CNN(**{"channels": C, "grid": GRID, "hidden_dim": E, **changes})


def transformer(**changes):
    return VanillaTransformer(**{"channels": C, "grid": GRID, "hidden_dim": E, "num_heads": 4, **LAYERS, **changes})


BASELINES = [mlp, cnn, transformer]


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("build", BASELINES)
def test_tokens_in_tokens_out_and_every_parameter_learns(build):
    torch.manual_seed(0)
    network, tokens = build(), torch.randn(2, N, C)
    out = network(tokens)
    assert out.shape == tokens.shape
    MSELoss()(tokens, out).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    network.eval()
    assert torch.equal(network(tokens), network(tokens))


@pytest.mark.parametrize("build", BASELINES)
def test_same_seed_same_network(build):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(torch.cat([value.flatten().float() for value in build().state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.slow
@pytest.mark.parametrize("build", BASELINES)
def test_a_baseline_learns_to_copy(build):
    """The shortcut of Sec. 3.1 is open to each."""
    torch.manual_seed(0)
    network, tokens = build(), torch.randn(8, N, C)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = MSELoss()(tokens, network(tokens))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def attention_size(e):
    return 4 * (e * e + e)


def feedforward_size(e, f):
    return e * f + f + f * e + e


def norm_size(e):
    return 2 * e


def test_the_transformer_has_the_parameters_of_the_description():
    ends = 2 * C * E + C + E
    encoder = attention_size(E) + feedforward_size(E, FF) + 2 * norm_size(E)
    decoder = 2 * attention_size(E) + feedforward_size(E, FF) + 3 * norm_size(E)
    positions = (GRID[0] + GRID[1]) * E // 2
    assert size(transformer()) == ends + 2 * encoder + 3 * decoder + N * E + positions + norm_size(E)
    paper = VanillaTransformer(
        channels=272, grid=[14, 14], hidden_dim=256, num_heads=8, feedforward_dim=1024, num_encoder_layers=4,
        num_decoder_layers=4, dropout=0.1,
    )  # fmt: skip
    assert size(paper) == 7_717_392 - 3 * 196 * 256  # UniAD's, with queries in one of four layers


def test_the_mlp_has_the_parameters_of_the_description():
    ends = 2 * C * E + C + E
    own, cross = E * E + E + norm_size(E), 2 * E * E + E + norm_size(E)
    encoder = own + feedforward_size(E, FF) + 2 * norm_size(E)
    decoder = own + cross + feedforward_size(E, FF) + 3 * norm_size(E)
    assert size(mlp()) == ends + 2 * encoder + 3 * decoder + N * E + norm_size(E)


def test_the_cnn_has_the_parameters_of_the_description():
    half = E // 2
    ends = 2 * C * E + C + E

    def convolution(i, o, k):
        return i * o * k * k + 2 * o  # with its batch norm, without bias

    first = 6 * convolution(E, E, 3)
    second = convolution(E, half, 3) + 7 * convolution(half, half, 3) + convolution(E, half, 1)
    third = 12 * convolution(half, half, 3)
    fourth = convolution(half, E, 3) + 5 * convolution(E, E, 3) + convolution(half, E, 1)
    assert size(cnn()) == ends + first + second + third + fourth


def test_the_transformer_is_uniad_with_one_query_and_neither_mask_nor_jitter():
    jitter = FeatureJitter(scale=20.0, prob=0.0, per="batch")
    torch.manual_seed(0)
    uniad = UniAD(
        channels=C, grid=GRID, hidden_dim=E, num_heads=4, **LAYERS, neighbor_size=1, masked=[False] * 3,
        jitter=jitter, decoder="one_query",
    )  # fmt: skip
    torch.manual_seed(0)
    vanilla = transformer()
    theirs, ours = uniad.state_dict(), vanilla.state_dict()
    assert {name for name in theirs if "visible" not in name} == set(ours)
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    tokens = torch.randn(2, N, C)
    torch.manual_seed(1)
    expected = uniad(tokens)
    torch.manual_seed(1)
    assert torch.equal(vanilla(tokens), expected)


def test_the_transformer_without_positions_is_torchs_own():
    torch.manual_seed(0)
    network = transformer().eval()
    body = network.transformer
    with torch.no_grad():
        body.position.row.zero_()
        body.position.column.zero_()
    shape = {"d_model": E, "nhead": 4, "dim_feedforward": FF, "dropout": 0.1, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**shape), 2, enable_nested_tensor=False).eval()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), 3, norm=nn.LayerNorm(E)).eval()
    names = {
        "attention": "self_attn", "attention_norm": "norm1", "encoded_attention": "self_attn", "encoded_norm": "norm1",
        "previous_attention": "multihead_attn", "previous_norm": "norm2", "feedforward.0": "linear1",
        "feedforward.3": "linear2",
    }  # fmt: skip
    for ours, theirs, last in ((body.encoder, encoder, "norm2"), (body.decoder, decoder, "norm3")):
        for layer, other in zip(ours, theirs.layers, strict=True):
            parts = {**names, "feedforward_norm": last}
            for name, value in layer.named_parameters():
                part = next((part for part in parts if name.startswith(f"{part}.")), None)
                if part is not None:
                    other.get_parameter(parts[part] + name.removeprefix(part)).data.copy_(value)
    decoder.norm.load_state_dict(body.norm.state_dict())
    tokens = torch.randn(4, N, C)
    queries = body.decoder[0].query.expand(4, N, E)
    expected = network.output_proj(decoder(queries, encoder(network.input_proj(tokens))))
    assert torch.allclose(network(tokens), expected, atol=1e-5)


def test_the_transformers_queries_are_in_the_first_layer_and_each_image_has_dropout_of_its_own():
    torch.manual_seed(0)
    network = transformer()
    assert [name for name, _ in network.named_parameters() if "query" in name] == ["transformer.decoder.0.query"]
    assert all(module.visible is None for module in network.modules() if isinstance(module, Attention))
    seen = []
    network.transformer.decoder[0].encoded_norm.register_forward_hook(lambda *args: seen.append(args[2]))
    network(torch.randn(1, N, C).expand(2, N, C))
    assert seen[0].shape == (2, N, E)
    assert not torch.equal(seen[0][0], seen[0][1])
    network.eval()(torch.randn(2, N, C))
    assert torch.allclose(seen[1][0], seen[1][1], atol=1e-6)  # queries that have seen nothing but themselves


def test_the_mlp_is_the_transformer_with_its_attentions_substituted():
    torch.manual_seed(0)
    network = mlp().eval()
    body = network.transformer

    def norm(x, layer):
        return F.layer_norm(x, (E,), layer.weight, layer.bias)

    def substitute(x, part):
        return norm(x @ part.linear.weight.T + part.linear.bias, part.norm).clamp_min(0)

    def feedforward(x, layer):
        first, _, _, second = layer.feedforward
        out = (x @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias
        return norm(x + out, layer.feedforward_norm)

    tokens = torch.randn(2, N, C)
    x = tokens @ network.input_proj.weight.T + network.input_proj.bias
    for layer in body.encoder:
        x = feedforward(norm(x + substitute(x, layer.attention), layer.attention_norm), layer)
    encoded, x = x, body.decoder[0].query.expand(2, N, E)
    for layer in body.decoder:
        x = norm(x + substitute(x, layer.encoded_attention), layer.encoded_norm)
        both = torch.cat([x, encoded], dim=2)
        x = feedforward(norm(x + substitute(both, layer.previous_attention), layer.previous_norm), layer)
    expected = norm(x, body.norm) @ network.output_proj.weight.T + network.output_proj.bias
    assert torch.allclose(network(tokens), expected, atol=1e-5)


def test_a_token_of_the_mlp_knows_of_no_other_but_of_its_place():
    torch.manual_seed(0)
    network = mlp().eval()
    tokens = torch.randn(1, 1, C).expand(1, N, C).clone().requires_grad_()
    out = network(tokens)
    assert not torch.allclose(out[0, 0], out[0, 1], atol=1e-3)  # the same feature, elsewhere
    out[0, 7].sum().backward()
    reached = tokens.grad[0].abs().sum(dim=1) > 0
    assert reached.nonzero().tolist() == [[7]]
    assert not [module for module in network.modules() if isinstance(module, Attention | PositionEmbedding)]


def resnet34_without_stem():
    """Stages of torchvision's blocks as appendix B.1 revises them."""

    def stage(i, o, blocks):
        change = None if i == o else nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))
        return nn.Sequential(BasicBlock(i, o, 1, change), *(BasicBlock(o, o) for _ in range(blocks - 1)))

    return nn.Sequential(stage(E, E, 3), stage(E, E // 2, 4), stage(E // 2, E // 2, 6), stage(E // 2, E, 3))


def test_the_cnn_is_resnet34_without_stem_and_strides():
    torch.manual_seed(0)
    network, stages = cnn(), resnet34_without_stem()
    values = list(network.stages.state_dict().values())
    stages.load_state_dict(dict(zip(stages.state_dict(), values, strict=True)))
    tokens = torch.randn(3, N, C)
    for training in (True, False):
        network.train(training)
        stages.train(training)
        image = tokens.transpose(1, 2).reshape(3, C, *GRID)
        ends = [(end.weight, end.bias) for end in (network.input_proj, network.output_proj)]
        expected = F.conv2d(stages(F.conv2d(image, *ends[0])), *ends[1])
        assert torch.allclose(network(tokens), expected.flatten(2).transpose(1, 2), atol=1e-4)
    ours, theirs = network.stages.state_dict().values(), stages.state_dict().values()
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(ours, theirs, strict=True))
    found = [module for module in network.stages.modules() if isinstance(module, nn.Conv2d)]
    assert len([one for one in found if one.kernel_size == (3, 3)]) == 34 - 2  # without stem and head
    assert {one.stride for one in found} == {(1, 1)}


@pytest.mark.parametrize("build", [mlp, transformer])
def test_either_stack_alone_will_do(build):
    tokens = torch.randn(1, N, C)
    assert build(num_decoder_layers=0)(tokens).shape == tokens.shape
    assert build(num_encoder_layers=0)(tokens).shape == tokens.shape
    encoder_alone = build(num_decoder_layers=0).transformer
    assert not [name for name, _ in encoder_alone.named_parameters() if "query" in name or "decoder" in name]


@pytest.mark.parametrize(
    ("build", "changes", "said"),
    [
        (mlp, {"num_encoder_layers": 0, "num_decoder_layers": 0}, "model.num_encoder_layers=0 and model.num_decoder_l"),
        (mlp, {"hidden_dim": 0}, "model.hidden_dim=0: expected a whole number of at least 1"),
        (mlp, {"dropout": 1}, "model.dropout=1: expected a number from 0 to below 1"),
        (mlp, {"grid": [4]}, "model.grid=\\[4\\]"),
        (cnn, {"hidden_dim": 15}, "model.hidden_dim=15 is odd"),
        (cnn, {"hidden_dim": 1.5}, "model.hidden_dim=1.5: expected a whole number"),
        (cnn, {"grid": 0}, "model.grid=0"),
        (transformer, {"num_heads": 5}, "model.hidden_dim=16 is no multiple of model.num_heads=5"),
        (transformer, {"hidden_dim": 15}, "model.hidden_dim=15"),
        (transformer, {"num_decoder_layers": -1}, "model.num_decoder_layers=-1: expected a whole number of at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(build, changes, said):
    with pytest.raises(InputError, match=said) as refused:
        build(**changes)
    assert "\n" not in str(refused.value)
