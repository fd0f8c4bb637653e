"""Pictures of what a detector reconstructs: the feature decoder of appendix B.3, its training, the panels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import nn

from support.configs import CONF, check_arguments, targets
from support.settings import SMALL
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.engines.checkpoint import load_engine
from uniad_lightning.models.cnn import BasicBlock
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.rendering.decoder_checkpoint import RENDERS, load_decoder, refuse_other_features
from uniad_lightning.rendering.renderer import Renderer, learned_queries
from uniad_lightning.rendering.train_decoder import DecoderTraining

CPU = torch.device("cpu")
TRAIN, TEST = 18, 10  # images of the tree


def feature_decoder(**changes):
    return FeatureDecoder(**{"channels": 6, "grid": (4, 4), "image_size": 32, "width": 2, **changes})


@pytest.mark.parametrize(
    ("grid", "size"),
    [((14, 14), 224), ((4, 6), (64, 96)), ((12, 12), 128), ((5, 3), (71, 46)), ((8, 8), 8), ((7, 7), (448, 448))],
)
def test_any_grid_becomes_an_image_of_any_size(grid, size):
    decoder = feature_decoder(grid=grid, image_size=size)
    image = decoder(torch.randn(2, 6, *grid))
    assert image.shape == (2, 3, *((size, size) if isinstance(size, int) else size))
    image.square().mean().backward()
    # A block starts as its shortcut, so behind its last norm nothing learns in the first step; all else does.
    inside = {f"{name}.{part}" for name, m in decoder.named_modules() if isinstance(m, BasicBlock) for part in PARTS}
    assert {name for name, p in decoder.named_parameters() if p.grad.abs().sum() == 0} <= inside


PARTS = ("conv1.weight", "norm1.weight", "norm1.bias", "conv2.weight")


def test_it_is_resnet34_from_its_end_to_its_start():
    decoder = FeatureDecoder(channels=272, grid=(14, 14), image_size=224, width=64)
    blocks = [[m for m in stage.modules() if isinstance(m, BasicBlock)] for stage in decoder.stages]
    assert [len(stage) for stage in blocks] == [3, 6, 4, 3]
    assert [{block.conv2.out_channels for block in stage} for stage in blocks] == [{512}, {256}, {128}, {64}]
    strides = [m.stride[0] for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert math.prod(strides) == 224 // 14
    assert strides == sorted(strides)  # deep stages work on the grid
    assert len(strides) == 5


@pytest.mark.slow
def test_it_learns_images_by_heart_and_takes_features_of_any_scale():
    torch.manual_seed(0)
    images = F.interpolate(torch.randn(4, 3, 4, 4), size=32, mode="bilinear")
    features = torch.randn(4, 6, 4, 4) * torch.logspace(-3, 3, 6).view(1, 6, 1, 1)
    decoder = feature_decoder(width=8)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        F.mse_loss(decoder(features), images).backward()
        optimizer.step()
    decoder.eval()
    with torch.no_grad():
        assert F.mse_loss(decoder(features), images) < 0.2 * images.var()
        assert (
            F.mse_loss(decoder(features[[1, 0, 2, 3]]), images) > images.var() / 4
        )  # each image from its own features


def test_a_width_that_is_none():
    with pytest.raises(InputError, match=r"decoder\.width=0"):
        feature_decoder(width=0)


def test_the_keys_of_the_decoder_are_arguments():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = list(targets(compose("train_decoder")))
    assert len(found) == 6  # trainer, optimizer, schedule, decoder, two callbacks
    for node in found:
        check_arguments(node)


class Made:
    """Runs of one tree on one backbone: detectors by name, and the file of the decoder that was trained for one."""

    def __init__(self, tree, folder):
        self.folder = folder
        self.words = [f"data.root={tree}", "trainer=cpu"]
        own = [word for word in SMALL if not word.startswith("model.") or word.startswith(("model.grid", "model.hid"))]
        for name, words in {
            "plain": [*SMALL, "trainer=smoke"],
            "standardized": [*SMALL, "trainer=smoke", "standardize=true"],
            "cnn": [*own, "model=cnn", "trainer=smoke"],
            "tiled": [*SMALL, "trainer=smoke", "data.framing.tiles=[1,2]"],
            "other_grid": [*SMALL, "trainer=smoke", "model.grid=[4,4]"],
        }.items():
            assert run_command("train", [*words, f"data.root={tree}", f"output_dir={folder}/{name}"]) == 0
        self.decoder = folder / "decoder/decoder.ckpt"

    def detector(self, name):
        return self.folder / name / "checkpoints/last.ckpt"

    def train(self, *words):
        """Overrides of a short training of a decoder for the plain detector."""
        short = ["decoder.width=2", "trainer.max_epochs=2", "output_dir=" + str(self.decoder.parent)]
        return [f"ckpt_path={self.detector('plain')}", *self.words, *short, *words]

    def renderer(self, name):
        engine = load_engine(str(self.detector(name)), CPU)
        decoder = load_decoder(str(self.decoder), engine.module.backbone, engine.image_size, ckpt_path=name)
        return Renderer(engine=engine, module=engine.module, decoder=decoder)


@pytest.fixture(scope="module")
def made(tree, tmp_path_factory):
    made = Made(tree, tmp_path_factory.mktemp("display"))
    assert run_command("train_decoder", made.train()) == 0
    return made


@pytest.mark.slow
def test_the_decoder_learns_from_every_image_and_is_kept_alone(made, uniad, tmp_path):
    status, out, err = uniad("train_decoder", *made.train(f"output_dir={tmp_path}"))
    assert status == 0, err
    assert f"{TRAIN + TEST} images to train on" in out
    checkpoint = torch.load(tmp_path / "decoder.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"decoder"}
    assert checkpoint["global_step"] == 2 * (TRAIN + TEST) // 4
    again = torch.load(made.decoder, weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in checkpoint["state_dict"].items())


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_weights(made, uniad, tmp_path, monkeypatch):
    step = DecoderTraining.training_step

    def interrupted(self, batch, batch_idx):
        if self.trainer.global_step == 10:  # in the second of two epochs
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    words = made.train(f"output_dir={tmp_path}")
    monkeypatch.setattr(DecoderTraining, "training_step", interrupted)
    assert uniad("train_decoder", *words)[0] == 130
    monkeypatch.undo()
    status, _, err = uniad("train_decoder", *words, "resume=true", "optimizer.lr=1e-2")
    assert (status, "optimizer.lr=0.01" in err) == (2, True)
    status, _, err = uniad("train_decoder", *words, "resume=true")
    assert status == 0, err
    straight, resumed = (torch.load(p, weights_only=True) for p in (made.decoder, tmp_path / "decoder.ckpt"))
    assert resumed["global_step"] == straight["global_step"]
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in straight["state_dict"].items())


@pytest.mark.slow
def test_panels_of_two_detectors_and_the_learned_queries(made, uniad, tree, tmp_path):
    words = [f"ckpt_path={made.detector('standardized')}", f"decoder={made.decoder}", f"output_dir={tmp_path}"]
    status, out, err = uniad("panels", *words, f"others={{cnn:{made.detector('cnn')}}}", "per_category=3", "device=cpu")
    assert status == 0, err
    assert str(tmp_path / "queries.png") in out
    assert sorted(path.name for path in (tmp_path / "panels").iterdir()) == ["bottle.png", "cable.png"]
    sheet = np.asarray(Image.open(tmp_path / "panels/cable.png"))
    # Reference, input, features, two reconstructions, truth, map and overlay, each enlarged to twice its 64 pixels.
    assert sheet.shape[:2] == (52 + 3 * 148, 8 * 132 + 4)
    cell = {name: sheet[68:196:2, 4 + 132 * i :][:, :128:2] for i, name in enumerate(("reference", "input"))}
    files = {"reference": "train/good/000.png", "input": "test/good/000.png"}
    for name, file in files.items():
        assert np.array_equal(cell[name], resize(read_image(tree / "cable" / file), (64, 64)))
    status, _, err = uniad("panels", *words)
    assert (status, "already holds panels" in err) == (2, True)
    status, out, err = uniad("panels", *words, "overwrite=true", f"ckpt_path={made.detector('cnn')}", "device=cpu")
    assert status == 0, err
    assert "there are none" in out
    assert not (tmp_path / "queries.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "standardized", "tiled"])
def test_what_is_rendered_are_the_backbones_own_features(made, tree, name):
    own = made.renderer(name)
    own.engine.module.network = nn.Identity()  # reconstructs everything
    images = [read_image(tree / "bottle/test/scratch/000.png"), read_image(tree / "cable/test/good/000.png")]
    rendered = own.render(images)
    assert np.array_equal(rendered.features, rendered.reconstruction)
    assert rendered.features.shape == (2, *own.engine.map_size, 3)
    assert rendered.map.max() < 1e-5
    if name != "tiled":  # by hand
        pixels = torch.from_numpy(np.stack([resize(image, (64, 64)) for image in images])).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            image = own.decoder(own.engine.module.backbone((pixels - 0.5) / 0.5)) * 0.5 + 0.5
        expected = image.clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255
        assert np.abs(expected - rendered.features).max() < 1
        assert expected.std() > 1


def test_queries_are_rendered_through_the_output_projection(made):
    own = made.renderer("standardized")
    module, decoder = own.engine.module, own.decoder
    shown = own.render_queries()
    assert list(shown) == ["layer 1", "layer 2", "random", "zero"]
    with torch.no_grad():
        for name, query in {
            "layer 2": module.network.transformer.decoder[1].query,
            "zero": torch.zeros(64, 32),
        }.items():
            token = F.linear(query, module.network.output_proj.weight, module.network.output_proj.bias)
            feature = (token * module.standardize.std + module.standardize.mean).T.reshape(1, -1, 8, 8)
            expected = ((decoder(feature)[0] * 0.5 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
            assert np.abs(expected - shown[name]).max() < 1
    assert not np.array_equal(shown["layer 1"], shown["layer 2"])
    assert learned_queries(made.renderer("cnn").engine.module.network) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("panels", ["decoder={decoder}", "ckpt_path={other_grid}"], "is for grid=(8, 8)"),
        ("panels", ["decoder={plain}", "ckpt_path={plain}"], "is a detector, no decoder"),
        ("panels", ["decoder=absent.ckpt", "ckpt_path={plain}"], "decoder=absent.ckpt: no such file"),
        ("panels", ["decoder={decoder}", "ckpt_path={plain}", "others={{tiled:{tiled}}}"], "others.tiled="),
        ("panels", ["decoder={decoder}", "ckpt_path={plain}", "others={tiled}"], "expected names with checkpoints"),
        ("panels", ["decoder={decoder}", "ckpt_path={plain}", "per_category=0"], "per_category=0"),
        ("panels", ["ckpt_path={plain}"], "decoder: needs a value"),
        ("train_decoder", ["ckpt_path={plain}", "output_dir={folder}/decoder"], "already holds a decoder"),
        ("train_decoder", ["ckpt_path={decoder}"], "backbone"),
        ("train_decoder", ["ckpt_path={plain}", "data.image_size=96"], "data.image_size=96"),
        ("train_decoder", ["ckpt_path={plain}", "decoder.width=x"], "decoder.width=x"),
        ("train_decoder", ["ckpt_path={plain}", "trainer.max_epochs=-1"], "set no end"),
    ],
)
def test_bad_input_is_one_line(made, uniad, tmp_path, command, words, said):
    names = ("plain", "tiled", "other_grid")
    paths = {"decoder": made.decoder, "folder": made.folder, **{name: made.detector(name) for name in names}}
    filled = [word.format(**paths) for word in words]
    status, _, err = uniad(command, f"output_dir={tmp_path}/out", *filled)
    assert status == 2, err
    assert said in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out/panels").exists()


@pytest.mark.parametrize(
    ("given", "rendered"), [({}, {"window": 3}), ({"window": 3}, {}), ({"window": 3}, {"window": 5})]
)
def test_a_decoder_of_features_with_another_setting_is_refused_whichever_has_it(given, rendered):
    checkpoint = {RENDERS: {"grid": [4, 4], **rendered}}
    with pytest.raises(InputError, match="decoder=d: is for window="):
        refuse_other_features({"grid": [4, 4], **given}, checkpoint, "d", ckpt_path="c")
    refuse_other_features({"grid": [4, 4], **rendered}, checkpoint, "d", ckpt_path="c")
