"""The ablations of Sec. 4.6 and appendix C: decoders against their formulas, and every job of every sweep."""

import itertools

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from torch import nn

from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.errors import InputError
from uniad_lightning.models.ablations.decoders import DESIGNS, DesignedDecoderLayer
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.neighbor_mask import neighbor_mask
from uniad_lightning.models.layers.transformer import Attention, DecoderLayer, LayerSizes
from uniad_lightning.models.uniad import UniAD
from uniad_lightning.training.build import build_module

GRID, E, N = (4, 6), 16, 24
MVTEC = """
    bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper
""".split()  # noqa: SIM905


def network(**changes):
    settings = {
        "channels": 10, "grid": GRID, "hidden_dim": E, "num_heads": 4, "feedforward_dim": 32, "num_encoder_layers": 1,
        "num_decoder_layers": 3, "dropout": 0.1, "neighbor_size": 3, "masked": [True, True, True],
        "jitter": FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    }  # fmt: skip
    return UniAD(**{**settings, **changes})


# Fig. A1: how attention 1 and attention 2, each a function of query and source, fuse the learned queries q, the
# encoder's output e and the previous layer's output p.
FIGURE_A1 = {
    "a": lambda one, two, q, e, p: two(one(q, e), p),
    "b": lambda one, two, q, e, p: two(one(q, p), e),
    "c": lambda one, two, q, e, p: two(p, one(q, e)),
    "d": lambda one, two, q, e, p: two(e, one(q, p)),
    "e": lambda one, two, q, e, p: two(q, one(p, e)),
    "f": lambda one, two, q, e, p: two(q, one(e, p)),
    "one_query": lambda one, two, q, e, p: two(one(p, p) if q is None else one(q, q), e),
    "no_query": lambda one, two, q, e, p: two(one(p, p), e),
}


def attention(layer, name, position, blocked):
    """`norm(query + attention(query, source))` by torch's own attention with the weights of `layer`."""
    ours, norm = getattr(layer, f"{name}_attention"), getattr(layer, f"{name}_norm")
    theirs = nn.MultiheadAttention(E, 4, batch_first=True)
    theirs.load_state_dict(dict(ours.named_parameters()))

    def attend(query, source):
        found, _ = theirs(query + position, source + position, source, attn_mask=blocked)
        return norm(query + found)

    return attend


@pytest.mark.parametrize("decoder", list(DESIGNS))
def test_decoder_is_its_design(decoder):
    torch.manual_seed(0)
    net = network(decoder=decoder, masked=[True, True, False]).eval()
    body, blocked = net.transformer, neighbor_mask(GRID, (3, 3))
    tokens = torch.randn(2, N, 10)
    position = body.position()
    encoded = previous = body.encoder[0](net.input_proj(tokens), position)
    for layer in body.decoder:
        one, two = attention(layer, "encoded", position, blocked), attention(layer, "previous", position, None)
        queries = None if layer.query is None else layer.query.expand(2, N, E)
        x = FIGURE_A1[decoder](one, two, queries, encoded, previous)
        previous = layer.feedforward_norm(x + layer.feedforward(x))
    expected = net.output_proj(body.norm(previous))
    assert torch.allclose(net(tokens), expected, atol=1e-5)


def test_the_six_designs_are_all_ways_to_fuse_three_inputs():
    """Appendix C.2: the learned queries have to be the query of one of two attentions."""
    ways = set()
    for first in itertools.permutations(("learned", "encoded", "previous"), 2):
        (third,) = {"learned", "encoded", "previous"} - set(first)
        for second in (("fused", third), (third, "fused")):
            if "learned" in (first[0], second[0]):
                ways.add((first, second))
    assert len(ways) == 6
    assert {(DESIGNS[name].first, DESIGNS[name].second) for name in "abcdef"} == ways
    # "1) The outputs of the previous layer should be input as key and value. 2) If the query embedding is input to the
    # first attention, the results of the first attention should serve as the query of the second": (a), (b) and (f).
    sound = {
        name
        for name in "abcdef"
        for first, second, _ in [DESIGNS[name]]
        if "previous" in (first[1], second[1]) and (first[0] != "learned" or second[0] == "fused")
    }
    assert sound == {"a", "b", "f"}


def test_the_papers_layer_is_design_a_bit_for_bit():
    sizes, blocked = LayerSizes(N, E, 32, 0.1), neighbor_mask(GRID, (3, 3))

    def attention():
        return Attention(dim=E, num_heads=4, dropout=0.1, blocked=blocked)

    previous, encoded, position = torch.randn(2, N, E), torch.randn(2, N, E), torch.randn(N, E)
    outputs, states = [], []
    for make in (
        lambda: DecoderLayer(sizes, encoded_attention=attention, previous_attention=attention),
        lambda: DesignedDecoderLayer(sizes, inputs=DESIGNS["a"].layer(1), attentions=(attention, attention)),
    ):
        torch.manual_seed(0)
        layer = make().train()
        states.append(layer.state_dict())
        outputs.append(layer(previous, encoded, position))
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(*outputs)


@pytest.mark.parametrize("decoder", list(DESIGNS))
def test_every_parameter_of_a_decoder_learns_and_queries_are_where_they_should(decoder):
    torch.manual_seed(0)
    net = network(decoder=decoder)
    net(torch.randn(2, N, 10)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    layers = [i for i, layer in enumerate(net.transformer.decoder) if layer.query is not None]
    assert layers == {"one_query": [0], "no_query": []}.get(decoder, [0, 1, 2])


def test_one_seed_starts_every_design_alike():
    states = []
    for decoder in "abcdef":
        torch.manual_seed(0)
        states.append(network(decoder=decoder).state_dict())
    assert all(torch.equal(state[name], value) for state in states for name, value in states[0].items())


def test_either_stack_alone_is_table_5b():
    """4+0 is the encoder, 0+4 the decoder on the projected tokens; the closing norm is in both."""
    torch.manual_seed(0)
    tokens = torch.randn(2, N, 10)
    encoder, decoder = network(num_decoder_layers=0).eval(), network(num_encoder_layers=0).eval()
    x = encoder.input_proj(tokens)
    body = encoder.transformer
    expected = encoder.output_proj(body.norm(body.encoder[0](x, body.position())))
    assert torch.equal(encoder(tokens), expected)
    x = previous = decoder.input_proj(tokens)
    for layer in decoder.transformer.decoder:
        previous = layer(previous, x, decoder.transformer.position())
    assert torch.equal(decoder(tokens), decoder.output_proj(decoder.transformer.norm(previous)))


def test_shared_queries_start_every_decoder():
    for decoder in DESIGNS:
        stack = network(decoder=decoder, shared_queries=True).transformer.decoder
        projections = [layer.previous_attention.in_proj_weight for layer in stack]
        assert all(torch.equal(projections[0], other) for other in projections[1:])


def test_an_unknown_decoder_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"decoder='one_querry' is unknown.*Did you mean 'one_query'\?") as refused:
        network(decoder="one_querry")
    assert "\n" not in str(refused.value)


# What a sweep varies, as the paper's table lists it.
OFF, ON = [False] * 3, [True] * 3
WHOLE = ("table1", "table2", "table3", "table4")  # with other systems: in paper/test_systems_sweeps.py
EXPECTED = {
    "reconstruction": (["model._target_"], [("MLP",), ("CNN",), ("VanillaTransformer",), ("UniAD",)]),  # Fig. 2
    "unified_or_separate": (["data.categories"], [(None,), *(([name],) for name in MVTEC)]),  # Tables 1, 2 and Fig. 4
    "transformers": (  # Table 4
        ["data.categories", "model.decoder", "model.masked", "model.jitter.prob"],
        [
            (categories, *kind)
            for categories in (None, *([name] for name in MVTEC))
            for kind in (("one_query", OFF, 0), ("a", ON, 1))
        ],
    ),
    "components": (  # Tables 5a and A2
        ["model.decoder", "model.masked", "model.jitter.prob"],
        [
            ("no_query", OFF, 0), ("one_query", OFF, 0), ("one_query", ON, 0), ("one_query", OFF, 1),
            ("one_query", ON, 1), ("a", OFF, 0), ("a", ON, 0), ("a", OFF, 1), ("a", ON, 1),
        ],
    ),  # fmt: skip
    "layers": (  # Table 5b
        ["model._target_", "model.num_encoder_layers", "model.num_decoder_layers"],
        [
            (name, *layers)
            for name in ("VanillaTransformer", "UniAD")
            for layers in ((4, 0), (0, 4), (2, 2), (4, 4), (6, 6))
        ],
    ),
    "neighbor_size": (["model.neighbor_size"], [(1,), (5,), (7,), (9,)]),  # Table 5c
    "mask_place": (  # Table 5d
        ["model.masked"], [([True, False, False],), ([True, True, False],), ([True, False, True],), (ON,)]
    ),
    "jitter_scale": (["model.jitter.scale"], [(5,), (10,), (20,), (30,)]),  # Table 5e
    "jitter_prob": (["model.jitter.prob"], [(0.25,), (0.5,), (0.75,), (1,)]),  # Table 5f
    "decoder": (  # Table A3
        ["model.decoder", "model.masked", "model.jitter.prob"], [(name, OFF, 0) for name in ("one_query", *"abcdef")]
    ),
    "decoder_masked": (  # Table A3
        ["model.decoder", "model.masked", "model.jitter.prob"], [(name, ON, 1) for name in "abf"]
    ),
    "loss": (["loss._target_"], [("MSELoss",), ("NormalizedMSELoss",), ("CosineLoss",)]),  # Table A4
    "backbone_trainable": (["backbone.trainable"], [(True,), (False,)]),  # Table A5
    "backbone": (  # Table A6
        ["backbone.name"],
        [(f"resnet{n}.tv_in1k",) for n in (18, 34, 50, 101)]
        + [(f"tf_efficientnet_b{n}.aa_in1k",) for n in (0, 2, 4, 6)],
    ),
}  # fmt: skip
TINY = [
    "experiment=demo", "backbone.weights=random", "model.grid=[10,10]", "model.hidden_dim=16", "data.image_size=64",
]  # fmt: skip


def jobs(sweep):
    """The overrides of each job of a sweep, as Hydra's own sweeper combines them."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = compose("train", [f"sweep={sweep}"], return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    given = [f"{key}={values}" for key, values in hydra.sweeper.params.items()]
    choices = [
        [f"{override.key_or_group}={one}" for one in override.sweep_string_iterator()]
        for override in OverridesParser.create().parse_overrides(given)
    ]
    return list(itertools.product(*choices))


def composed(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*overrides])


def setting(cfg, key):
    value = OmegaConf.select(cfg, key, throw_on_missing=True)
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return value.rsplit(".", 1)[-1] if key.endswith("_target_") else value


def one_step(cfg):
    """A step of training; whatever learns has to have a gradient."""
    module = build_module(cfg, announce=False)
    learns = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    optimizer = module.optimizer(learns.values())
    tokens = module.train().tokens({"image": torch.randn(2, 3, 64, 64)})
    loss = module.loss(tokens, module.network(tokens))
    loss.backward()
    before = {name: parameter.detach().clone() for name, parameter in learns.items()}
    optimizer.step()
    assert loss.isfinite()
    assert not [name for name, parameter in learns.items() if parameter.grad is None]
    assert any(not torch.equal(before[name], parameter) for name, parameter in learns.items())
    maps = module.eval().anomaly_map({"image": torch.randn(1, 3, 64, 64)})
    assert maps.shape == (1, 10, 10)
    assert maps.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("sweep", list(EXPECTED))
def test_a_sweep_is_the_papers_table_and_each_job_trains(sweep):
    keys, rows = EXPECTED[sweep]
    torch.manual_seed(0)
    found, trained = [], []
    for job in jobs(sweep):
        cfg = composed(*TINY, f"sweep={sweep}", *job)
        found.append(tuple(setting(cfg, key) for key in keys))
        parts = [OmegaConf.to_container(cfg[part]) for part in ("model", "backbone", "loss")]
        if parts not in trained:  # of jobs that differ in their data one will do
            trained.append(parts)
            one_step(cfg)
    assert found == rows


def test_no_sweep_is_without_a_table():
    assert {path.stem for path in (conf_dir() / "sweep").glob("*.yaml")} == {*EXPECTED, *WHOLE, "search"}
    for name in (*EXPECTED, *WHOLE):
        head = (conf_dir() / "sweep" / f"{name}.yaml").read_text().split("hydra:")[0]
        assert f"sweep={name}" in head
        assert "Table" in head or "Fig." in head


@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_an_experiment_sizes_every_network(model):
    demo = composed("experiment=demo", f"model={model}").model
    assert demo.hidden_dim == 128
    assert demo.grid == [12, 12]
    assert model == "cnn" or (demo.num_encoder_layers == 2 and demo.dropout == 0)
    cifar = composed("experiment=cifar10", "data.root=x", f"model={model}").model
    assert cifar.grid == [8, 8]
    assert "neighbor_size" not in cifar
    assert composed("experiment=cifar10", "data.root=x").model.neighbor_size == 5  # B.4


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "transformer"])
def test_a_baseline_trains_is_saved_and_says_the_same_again(model, uniad, tree, tmp_path):
    """The CNN's batch norms have a state besides weights."""
    own = [word for word in SMALL if not word.startswith("model.") or word.split("=")[0] == "model.grid"]
    trained, again = tmp_path / "trained", tmp_path / "again"
    words = [*own, f"model={model}", "model.hidden_dim=16", f"data.root={tree}"]
    status, _, err = uniad("train", *words, f"output_dir={trained}")
    assert status == 0, err
    checkpoint = trained / "checkpoints" / "last.ckpt"
    status, _, err = uniad("evaluate", f"ckpt_path={checkpoint}", f"output_dir={again}", "trainer=cpu")
    assert status == 0, err
    assert (trained / "results.csv").read_text() == (again / "results.csv").read_text()


@pytest.mark.slow
def test_a_sweep_over_products_alone_and_together(uniad, tmp_path):
    root = mvtec_tree(tmp_path / "tree", train=4, size=(64, 64))
    words = [*SMALL, f"data.root={root}", "trainer.max_epochs=1", f"output_dir={tmp_path / 'runs'}"]
    status, out, err = uniad(
        "train", *words, "sweep=transformers", "ablation=one_query", "data.categories=null,[cable]"
    )
    assert status == 0, err
    folders = {path.name: path for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert len(folders) == 2
    rows = {name: (path / "results.csv").read_text().count("\n") for name, path in folders.items()}
    assert sorted(rows.values()) == [4, 5]  # heading, one product or two, mean, pooled
    assert all("categories" in name for name in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.decoder=null"], "model.decoder=None is unknown"),
        (["model.decoder=g"], "model.decoder='g' is unknown; expected one of a, b, c, d, e, f, one_query, no_query"),
        (["model.num_encoder_layers=0", "model.num_decoder_layers=0"], "leave nothing to learn with"),
        (["ablation=two_queries"], "ablation=two_queries: no such option"),
        (["model=rnn"], "model=rnn: no such option"),
        (["model=mlp", "model.num_heads=4"], "num_heads"),
        (["model=mlp", "ablation=one_query"], "decoder"),
    ],
)
def test_a_mistake_is_one_line(uniad, tree, tmp_path, words, said):
    start = ["backbone=tiny", "backbone.weights=random", f"data.root={tree}", f"output_dir={tmp_path / 'run'}"]
    status, _, err = uniad("train", *start, *words)
    lines = [line for line in err.splitlines() if "warning" not in line]
    assert status == 2
    assert len(lines) == 1, err
    assert said in lines[0]
