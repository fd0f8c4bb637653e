"""Checkpoints of the reference implementation, from file to map, against an independent rewrite of its conventions."""

import math
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from support.checkpoints import Foreign
from support.trees import mvtec_tree
from uniad_lightning.command_line.cli import main, run_command
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.backbone.static_padding import StaticallyPadded
from uniad_lightning.reference.weights import is_behind

SIZE, GRID, WIDTH, HEADS, FEEDFORWARD, LAYERS, WINDOW = 64, 4, 16, 4, 24, (1, 2), 3
# EfficientNet's stages: kernel, stride, expansion; of each size its native image, stem, and channels and repeats.
STAGES = [(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6)]
SIZES = {
    "b0": (224, 32, [(16, 1), (24, 2), (40, 2), (80, 3), (112, 3)]),
    "b4": (380, 48, [(24, 2), (32, 4), (56, 4), (112, 6), (160, 6)]),
}
TAPPED = (0, 1, 2, 4)  # stages before the next stride, and the last that is built here


def blocks(kind):
    """(kernel, stride, expansion, channels in, channels out, last of a tapped stage) of each block."""
    _, inside, stages = SIZES[kind]
    for stage, ((kernel, stride, expansion), (out, repeats)) in enumerate(zip(STAGES, stages, strict=True)):
        for repeat in range(repeats):
            last = stage in TAPPED and repeat == repeats - 1
            yield kernel, stride if repeat == 0 else 1, expansion, inside, out, last
            inside = out


class Fabricated:
    """Random tensors under the reference's names."""

    def __init__(self, kind, generator):
        self.generator, self.tensors = generator, {}
        self.backbone(kind)
        self.reconstruction(sum(out for *_, out, last in blocks(kind) if last))
        # As after a training: otherwise values grow from block to block, and so does the rounding.
        oracle_features(self.tensors, torch.randn(8, 3, SIZE, SIZE, generator=generator), kind, fit=True)

    def draw(self, name, *shape, scale=1.0, around=0.0):
        self.tensors[f"module.{name}"] = around + scale * torch.randn(shape, generator=self.generator)

    def convolution(self, name, out, inside, kernel, bias=False):
        self.draw(f"{name}.weight", out, inside, kernel, kernel, scale=1.4 / math.sqrt(inside * kernel * kernel))
        if bias:
            self.draw(f"{name}.bias", out)

    def norm(self, name, channels):
        for part, around in (("weight", 1.3), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.draw(f"{name}.{part}", channels, scale=0.1, around=around)
        self.tensors[f"module.{name}.num_batches_tracked"] = torch.tensor(7)

    def backbone(self, kind):
        stem, built = SIZES[kind][1], list(blocks(kind))
        self.convolution("backbone._conv_stem", stem, 3, 3)
        self.norm("backbone._bn0", stem)
        for index, (kernel, _, expansion, inside, out, _) in enumerate(built):
            name, wide = f"backbone._blocks.{index}", inside * expansion
            if expansion > 1:
                self.convolution(f"{name}._expand_conv", wide, inside, 1)
                self.norm(f"{name}._bn0", wide)
            self.convolution(f"{name}._depthwise_conv", wide, 1, kernel)
            self.norm(f"{name}._bn1", wide)
            self.convolution(f"{name}._se_reduce", inside // 4, wide, 1, bias=True)
            self.convolution(f"{name}._se_expand", wide, inside // 4, 1, bias=True)
            self.convolution(f"{name}._project_conv", out, wide, 1)
            self.norm(f"{name}._bn2", out)
        self.convolution(f"backbone._blocks.{len(built)}._expand_conv", 6, 6, 1)  # behind what is used
        self.convolution("backbone._conv_head", 6, 6, 1)
        self.norm("backbone._bn1", 6)
        self.draw("backbone._fc.weight", 5, 6)

    def linear(self, name, out, inside, weight=".weight", bias=".bias"):
        self.draw(f"{name}{weight}", out, inside, scale=1 / math.sqrt(inside))
        self.draw(f"{name}{bias}", out, scale=0.1)

    def reconstruction(self, channels):
        name = "reconstruction.transformer"
        for stack, attentions, count in (
            ("encoder", ["self_attn"], LAYERS[0]),
            ("decoder", ["self_attn", "multihead_attn"], LAYERS[1]),
        ):
            for layer in (f"{name}.{stack}.layers.{index}" for index in range(count)):
                for attention in attentions:
                    self.linear(f"{layer}.{attention}", 3 * WIDTH, WIDTH, ".in_proj_weight", ".in_proj_bias")
                    self.linear(f"{layer}.{attention}.out_proj", WIDTH, WIDTH)
                self.linear(f"{layer}.linear1", FEEDFORWARD, WIDTH)
                self.linear(f"{layer}.linear2", WIDTH, FEEDFORWARD)
                for norm in range(1, len(attentions) + 2):
                    self.layer_norm(f"{layer}.norm{norm}")
                if stack == "decoder":
                    self.draw(f"{layer}.learned_embed.weight", GRID * GRID, WIDTH)
        self.layer_norm(f"{name}.decoder.norm")
        for axis in ("row", "col"):
            self.draw(f"reconstruction.pos_embed.{axis}_embed.weight", GRID, WIDTH // 2)
        self.linear("reconstruction.input_proj", WIDTH, channels)
        self.linear("reconstruction.output_proj", channels, WIDTH)

    def layer_norm(self, name):
        self.draw(f"{name}.weight", WIDTH, scale=0.1, around=1.0)
        self.draw(f"{name}.bias", WIDTH, scale=0.1)


def oracle_features(tensors, image, kind, *, fit=False):
    """(B, 3, H, W) -> (B, C, GRID, GRID) as EfficientNet-PyTorch and the reference's neck have it.

    With `fit` the statistics of the batch norms are first set to those of `image`.
    """

    def convolve(x, name, stride=1, side=1, groups=1):
        weight = tensors[f"module.backbone.{name}.weight"]
        kernel = weight.shape[-1]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)  # of the native size, at any size
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        return F.conv2d(x, weight, tensors.get(f"module.backbone.{name}.bias"), stride=stride, groups=groups)

    def norm(x, name):
        def get(part):
            return tensors[f"module.backbone.{name}.{part}"]

        if fit:
            get("running_mean").copy_(x.mean(dim=(0, 2, 3)))
            get("running_var").copy_(x.var(dim=(0, 2, 3)))
        return F.batch_norm(x, *map(get, ("running_mean", "running_var", "weight", "bias")), eps=1e-3)

    side, found = SIZES[kind][0], []
    x = F.silu(norm(convolve(image, "_conv_stem", 2, side), "_bn0"))
    side = math.ceil(side / 2)
    for index, (_, stride, expansion, inside, out, last) in enumerate(blocks(kind)):
        name, before = f"_blocks.{index}", x
        if expansion > 1:
            x = F.silu(norm(convolve(x, f"{name}._expand_conv", side=side), f"{name}._bn0"))
        x = convolve(x, f"{name}._depthwise_conv", stride, side, groups=inside * expansion)
        x, side = F.silu(norm(x, f"{name}._bn1")), math.ceil(side / stride)
        squeezed = F.silu(convolve(x.mean(dim=(2, 3), keepdim=True), f"{name}._se_reduce"))
        x = x * torch.sigmoid(convolve(squeezed, f"{name}._se_expand"))
        x = norm(convolve(x, f"{name}._project_conv", side=side), f"{name}._bn2")
        x = x + before if stride == 1 and inside == out else x
        if last:
            found.append(F.interpolate(x, size=(GRID, GRID), mode="bilinear", align_corners=True))
    return torch.cat(found, 1)


def oracle_reconstruction(tensors, tokens):
    """(N, 1, C) -> (N, 1, C), tokens first as in the reference."""

    def get(name):
        return tensors[f"module.reconstruction.{name}"]

    def near(axis):
        return (axis[:, None] - axis[None]).abs() <= WINDOW // 2

    cell = torch.arange(GRID * GRID)
    row, column = cell // GRID, cell % GRID
    mask = torch.zeros(len(cell), len(cell)).masked_fill(near(row) & near(column), float("-inf"))
    position = torch.cat([get("pos_embed.col_embed.weight")[column], get("pos_embed.row_embed.weight")[row]], 1)[
        :, None
    ]

    def linear(x, name):
        return F.linear(x, get(f"{name}.weight"), get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), get(f"{name}.weight"), get(f"{name}.bias"))

    def attend(query, memory, name):
        packed = [get(f"{name}.in_proj_weight"), get(f"{name}.in_proj_bias"), None, None, False, 0.0]
        out = [get(f"{name}.out_proj.weight"), get(f"{name}.out_proj.bias")]
        given = (query + position, memory + position, memory, WIDTH, HEADS)
        return F.multi_head_attention_forward(*given, *packed, *out, training=False, attn_mask=mask)[0]

    def feed_forward(x, layer):
        return x + linear(F.relu(linear(x, f"{layer}.linear1")), f"{layer}.linear2")

    x = linear(tokens, "input_proj")
    for layer in (f"transformer.encoder.layers.{index}" for index in range(LAYERS[0])):
        x = norm(x + attend(x, x, f"{layer}.self_attn"), f"{layer}.norm1")
        x = norm(feed_forward(x, layer), f"{layer}.norm2")
    encoded = x
    for layer in (f"transformer.decoder.layers.{index}" for index in range(LAYERS[1])):
        query = get(f"{layer}.learned_embed.weight")[:, None]
        query = norm(query + attend(query, encoded, f"{layer}.self_attn"), f"{layer}.norm1")
        query = norm(query + attend(query, x, f"{layer}.multihead_attn"), f"{layer}.norm2")
        x = norm(feed_forward(query, layer), f"{layer}.norm3")
    return linear(norm(x, "transformer.decoder.norm"), "output_proj")


def oracle_map(tensors, picture, kind):
    """(SIZE, SIZE, 3) uint8 -> (SIZE, SIZE)."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    image = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
    features = oracle_features(tensors, image[None], kind)
    tokens = features.flatten(2).permute(2, 0, 1)
    distance = (oracle_reconstruction(tensors, tokens) - tokens).norm(dim=2).view(1, 1, GRID, GRID)
    return F.interpolate(distance, size=(SIZE, SIZE), mode="bilinear", align_corners=True)[0, 0]


class EasyDict(dict):
    """As the package of that name: its pickle holds every entry twice."""


EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"


def arch(kind, **changes):
    """What the reference writes of its parts."""
    network = EasyDict(
        nhead=HEADS, feature_size=[GRID, GRID], activation="relu",
        neighbor_mask=EasyDict(neighbor_size=[WINDOW, WINDOW], mask=[True, True, True]), **changes,
    )  # fmt: skip
    for options in (network, network["neighbor_mask"]):
        options.__dict__.update(options)
    return [
        EasyDict(name="backbone", type=f"models.backbones.efficientnet_{kind}", kwargs=EasyDict()),
        EasyDict(name="neck", type="models.necks.MFCN", kwargs=EasyDict(outstrides=[16])),
        EasyDict(name="reconstruction", type="models.reconstructions.UniAD", kwargs=network),
    ]


def write(path, tensors, kind, monkeypatch, **entries):
    monkeypatch.setitem(sys.modules, "easydict", ModuleType("easydict"))
    sys.modules["easydict"].EasyDict = EasyDict
    content = {"epoch": 10, "arch": arch(kind), "state_dict": tensors, "best_metric": np.float64(0.9), "optimizer": {}}
    torch.save({**content, **entries}, path)
    monkeypatch.undo()
    return path


def command(name, *words):
    return run_command(name, [str(word) for word in words])


def importing(file, output, kind, *words):
    of_kind = [f"backbone=efficientnet_{kind}", f"data.image_size={SIZE}"]
    own = [f"model.num_heads={HEADS}", f"model.neighbor_size={WINDOW}"]
    return command("import_official", f"file={file}", f"output={output}", *of_kind, *own, *words)


@pytest.fixture(scope="module", params=SIZES)
def imported(request, tmp_path_factory):
    """(kind, tensors, the reference's file, ours)."""
    folder, kind = tmp_path_factory.mktemp("official"), request.param
    tensors = Fabricated(kind, torch.Generator().manual_seed(0)).tensors
    with pytest.MonkeyPatch.context() as patch:
        file = write(folder / "ckpt.pth.tar", tensors, kind, patch)
    assert importing(file, folder / "ours.ckpt", kind) == 0
    return kind, tensors, file, folder / "ours.ckpt"


def worst(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.slow
def test_from_file_to_map_it_says_what_the_reference_says(imported, tmp_path):
    kind, tensors, file, output = imported
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    expected = oracle_map(tensors, picture, kind)
    found = Detector.load(output, device="cpu").predict(picture)
    assert worst(torch.from_numpy(found.scored_map), expected) < 1e-4
    if kind == "b4":  # padded as for the picture itself it says something else
        assert importing(file, tmp_path / "own.ckpt", kind, f"backbone.padding_for={SIZE}") == 0
        other = Detector.load(tmp_path / "own.ckpt", device="cpu").predict(picture)
        assert worst(torch.from_numpy(other.scored_map), expected) > 1e-3


def test_sizes_are_read_off_the_tensors_and_kept_in_the_configuration(imported):
    kind, _, _, output = imported
    checkpoint = torch.load(output, weights_only=True)
    model, backbone = checkpoint["config"]["model"], checkpoint["config"]["backbone"]
    assert (model["hidden_dim"], model["feedforward_dim"], model["grid"]) == (WIDTH, FEEDFORWARD, [GRID, GRID])
    assert (model["num_encoder_layers"], model["num_decoder_layers"]) == LAYERS
    assert backbone["padding_for"] == SIZES[kind][0]
    assert checkpoint["categories"] == []


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["b0"], indirect=True)
def test_it_is_evaluated_and_started_from_but_not_resumed(imported, tmp_path, capsys):
    *_, output = imported
    tree = mvtec_tree(tmp_path / "tree", size=(SIZE, SIZE), categories=["bottle"])
    quick = ["trainer=smoke", "logger=none", f"data.root={tree}", "data.num_workers=0", "data.batch_size=2"]
    run = ["trainer=smoke", f"data.root={tree}", "data.num_workers=0", f"output_dir={tmp_path}/run"]
    assert command("evaluate", f"ckpt_path={output}", *run) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert command("train", f"init_from={output}", *quick, f"output_dir={tmp_path}/further") == 0
    capsys.readouterr()
    resume = ["train", f"ckpt_path={output}", *quick, "backbone=tiny", f"output_dir={tmp_path}/resumed"]
    assert command(*resume) == 2
    assert "init_from=" in one_line_of(capsys)


def one_line_of(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("uniad: ")
    return lines[0]


def without(name):
    return lambda tensors: tensors.pop(name)


def extra(name, *shape):
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


STEM, QUERY = "module.backbone._conv_stem.weight", "module.reconstruction.transformer.decoder.layers.1.learned_embed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words", "named"),
    [
        (without(STEM), [], "backbone._conv_stem.weight: missing"),
        (without("module.backbone._blocks.3._bn2.running_var"), [], "backbone._blocks.3._bn2.running_var: missing"),
        (without(f"{QUERY}.weight"), [], "decoder.layers.1.learned_embed.weight: missing"),
        (without("module.reconstruction.pos_embed.row_embed.weight"), [], "pos_embed.row_embed.weight: missing"),
        (without("module.reconstruction.input_proj.weight"), [], "input_proj.weight: missing"),
        (extra("module.backbone._blocks.3._bn9.weight", 2), [], "backbone._blocks.3._bn9.weight: unknown"),
        (extra("module.backbone._blocks.99._bn9.weight", 2), [], "backbone._blocks.99._bn9.weight: unknown"),
        (extra("module.neck.weight", 2), [], "neck.weight: unknown"),
        (extra(STEM, 8, 3, 3, 3), [], "backbone._conv_stem.weight: has shape (8, 3, 3, 3), expected (32, 3, 3, 3)"),
        (extra(f"{QUERY}.weight", 9, WIDTH), [], "learned_embed.weight: has shape (9, 16), expected (16, 16)"),
        (extra("module.reconstruction.input_proj.weight", WIDTH, 7), [], "backbone.levels="),
        (dict, ["model.num_heads=2"], "'model.num_heads=4'"),
        (dict, ["model.neighbor_size=1"], "'model.neighbor_size=[3,3]'"),
        (dict, ["model.masked=[true,true,false]"], "'model.masked=[true,true,true]'"),
        (dict, ["data.image_size=224"], "'data.image_size=[64,64]'"),
        (dict, ["backbone=efficientnet_b2"], "'backbone.name=tf_efficientnet_b0'"),
        (dict, ["backbone=resnet18"], "tf_efficientnet_b0 to tf_efficientnet_b7"),
        (dict, ["model.decoder=b"], "model.decoder=a"),
        (dict, ["standardize=true"], "standardize=false"),
        (dict, ["output=FILE"], "exists already"),
        (dict, ["output=FILE/x"], "cannot be written"),
        (dict, ["file=nowhere.pth.tar"], "no such file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(change, words, named, tmp_path, monkeypatch, capsys):
    tensors = Fabricated("b0", torch.Generator().manual_seed(1)).tensors
    change(tensors)
    file = write(tmp_path / "ckpt.pth.tar", tensors, "b0", monkeypatch)
    words = [word.replace("FILE", str(file)) for word in words]
    assert importing(file, tmp_path / "ours.ckpt", "b0", *words) == 2
    assert named in one_line_of(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pth.tar"]


@pytest.mark.parametrize("imported", ["b0"], indirect=True)
def test_another_network_is_refused(imported, tmp_path, capsys):
    assert command("import_official", f"file={imported[2]}", f"output={tmp_path}/ours.ckpt", "model=mlp") == 2
    assert "model=uniad" in one_line_of(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": {}, "arch": Foreign()}, "holds an object of"),
        ({"state_dict": {"a": 1}}, "is no checkpoint of the reference"),
        ({"weights": {}}, "is no checkpoint of the reference"),
        ([1], "is no checkpoint of the reference"),
        ({"state_dict": {"module.backbone.a": torch.zeros(1)}}, "'module.reconstruction.'"),
        ({"state_dict": {"reconstruction.a": torch.zeros(1)}}, "'module.backbone.'"),
        (b"words", "cannot be read as a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_of_the_reference_are_refused(content, named, tmp_path, capsys):
    file = tmp_path / "ckpt.pth.tar"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    assert importing(file, tmp_path / "ours.ckpt", "b0") == 2
    assert named in one_line_of(capsys)


@pytest.mark.parametrize(("option", "value"), [("activation", "gelu"), ("neighbor_mask", False)])
def test_settings_that_no_tensor_shows_are_compared(option, value, tmp_path, monkeypatch, capsys):
    tensors = Fabricated("b0", torch.Generator().manual_seed(1)).tensors
    parts = arch("b0")
    parts[2]["kwargs"][option] = value
    file = write(tmp_path / "ckpt.pth.tar", tensors, "b0", monkeypatch, arch=parts)
    assert importing(file, tmp_path / "ours.ckpt", "b0") == 2
    assert ("gelu" if option == "activation" else "'model.masked=[false,false,false]'") in one_line_of(capsys)


@pytest.mark.slow
def test_without_the_words_of_the_file_and_of_parallel_training_it_is_read_too(tmp_path, monkeypatch):
    tensors = Fabricated("b0", torch.Generator().manual_seed(1)).tensors
    bare = {name.removeprefix("module."): value for name, value in tensors.items()}
    file = write(tmp_path / "ckpt.pth.tar", bare, "b0", monkeypatch, arch=None)
    assert importing(file, tmp_path / "ours.ckpt", "b0") == 0


def test_the_command_is_found_with_a_dash_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["uniad", "import-official", "file=nowhere", f"output={tmp_path}/ours.ckpt"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "file=nowhere: no such file" in one_line_of(capsys)


def test_what_is_behind_the_last_block_that_is_used():
    used = ["_blocks.0._bn1.weight", "_blocks.10._bn1.weight"]
    behind = ["_blocks.11._bn1.weight", "_conv_head.weight", "_bn1.running_var", "_fc.bias"]
    assert all(is_behind(name, used) for name in behind)
    assert not any(is_behind(name, used) for name in ["_blocks.9._se_reduce.bias", "_bn0.weight", "_blocks.11.x.bias"])


def backbone(**settings):
    torch.manual_seed(0)
    return Backbone(name="tf_efficientnet_b4", levels=[0, 1, 2, 3], grid=[4, 4], weights="random", **settings)


@pytest.mark.slow
def test_padding_for_a_size_is_what_images_of_that_size_get_and_changes_others():
    usual, padded = backbone(), backbone(padding_for=[62, 58])
    assert not any(isinstance(module, StaticallyPadded) for module in usual.modules())
    assert list(padded.state_dict()) == list(usual.state_dict())
    own, other = torch.randn(2, 3, 62, 58), torch.randn(2, 3, 64, 64)
    assert worst(padded(own), usual(own)) < 1e-5
    assert worst(padded(other), usual(other)) > 1e-2
    unfolded = padded._features(padded.model, other)
    assert worst(padded(other), unfolded) < 1e-5


@pytest.mark.slow
def test_features_that_are_padded_differently_are_kept_apart():
    prints = [fingerprint(backbone(padding_for=size)) for size in (None, 62, 64)]
    assert len({one["structure"] for one in prints}) == 3
    assert len({one["weights"] for one in prints}) == 1


@pytest.mark.parametrize(("name", "size", "named"), [("resnet18", 64, "pads alike"), ("tf_efficientnet_b0", 0, "size")])
def test_padding_that_cannot_be_is_refused(name, size, named):
    with pytest.raises(InputError, match=f"backbone.padding_for={size}.*{named}"):
        Backbone(name=name, levels=[1], grid=[4, 4], weights="random", padding_for=size)
