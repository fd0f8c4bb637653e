"""model=patch_svdd: losses and map as rewritten, its banks after a training, the whole journey, what it refuses."""

import json
import subprocess

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.spatial.distance import cdist

from support.checkpoints import weights
from support.journeys import use
from support.settings import UNIAD
from uniad_lightning import Detector
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.detectors.patch_svdd import PatchSVDD
from uniad_lightning.models.patch_svdd import neighbors, shifted
from uniad_lightning.randomness import key
from uniad_lightning.training.build import build_data, build_module, build_saved

SMALL = [
    "model=patch_svdd", "model.width=2", "model.dim=8", "model.pairs=2", "model.stride=[32,16]", "trainer=cpu",
    "data.image_size=128", "data.batch_size=4", "data.num_workers=0", "trainer.max_epochs=3", "optimizer.lr=1e-3",
    "data.held_out=0.2",
]  # fmt: skip
EVERY_FOUR_STEPS = [
    "+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"',
    "callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=4",
]  # fmt: skip


def run(*words):
    done = subprocess.run([UNIAD, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """The run folder of a small training, with checkpoints of every four steps."""
    folder = tmp_path_factory.mktemp("patch_svdd") / "run"
    run("train", *SMALL, *EVERY_FOUR_STEPS, f"data.root={tree}", f"output_dir={folder}")
    return folder


def detector(**more):
    torch.manual_seed(0)
    return PatchSVDD(
        optimizer=torch.optim.AdamW, schedule=None, seed=0, **{
            "image_size": 128, "dim": 8, "width": 2, "pairs": 3, "svdd_weight": 0.5, "stride": [32, 16],
            "max_patches": None, "half": False, "megabytes": 1, **more,
        },
    )  # fmt: skip


def pixels(path):
    image = resize(read_image(path), (128, 128)).astype(np.float32) / 255
    return torch.from_numpy(image).permute(2, 0, 1)


@pytest.mark.parametrize("size", [32, 64])
def test_the_svdd_loss_is_that_of_a_rewrite(size):
    module, images = detector(), torch.rand(2, 3, 128, 128)
    torch.manual_seed(1)
    found = module.svdd_loss(images, size)
    torch.manual_seed(1)
    base = int(torch.empty((), dtype=torch.int64).random_())
    distances = []
    for image, seed in zip(images, streams(base), strict=False):
        uniform = torch.rand(3, 3, generator=torch.Generator().manual_seed(seed))
        for pair in shifted(uniform, (128, 128), size).tolist():
            first, second = (embedded(module, image, corner, size) for corner in pair)
            distances.append(np.sqrt(((first - second) ** 2).sum()))
    assert len(distances) == 6
    assert found.item() == pytest.approx(np.mean(distances), rel=1e-4)


@pytest.mark.parametrize("size", [32, 64])
def test_the_loss_of_directions_is_that_of_a_rewrite(size):
    module, images = detector(), torch.rand(2, 3, 128, 128)
    torch.manual_seed(1)
    found = module.direction_loss(images, module.classifiers[size == 32], size)
    torch.manual_seed(1)
    bases = [int(torch.empty((), dtype=torch.int64).random_()) for _ in range(3)]
    entropies = []
    for image, *seeds in zip(images, *map(streams, bases), strict=False):
        where, colour, grain = (torch.Generator().manual_seed(seed) for seed in seeds)
        corners, directions = neighbors(torch.rand(3, 5, generator=where), (128, 128), size)
        noise = torch.randn(3, 2, 3, 1, 1, generator=colour) + torch.randn(3, 2, 3, size, size, generator=grain)
        for pair, direction, of_pair in zip(corners.tolist(), directions.tolist(), noise, strict=True):
            first, second = (
                embedded(module, image, corner, size, 0.02 * one) for corner, one in zip(pair, of_pair, strict=True)
            )
            with torch.no_grad():
                scores = module.classifiers[size == 32](torch.from_numpy(first - second).float()).double().numpy()
            entropies.append(np.log(np.exp(scores).sum()) - scores[direction])
    assert len(entropies) == 6
    assert found.item() == pytest.approx(np.mean(entropies), rel=1e-4)


def streams(base):
    """The seeds of the samples of a batch on a CPU, from the number that torch's generator gave."""
    return [key(base, place) for place in range(2)]


def embedded(module, image, corner, size, noise=0.0):
    top, left = corner
    with torch.no_grad():
        return module.encoder.embed((image[:, top : top + size, left : left + size] + noise)[None])[0].double().numpy()


def test_the_map_is_that_of_a_rewrite_and_the_mean_image_that_of_the_train_images(trained, tree):
    saved = Detector.load(trained)
    module = saved.engine.module
    train = train_paths(build_saved(str(trained / "checkpoints/last.ckpt"))[1])
    assert len(train) == 14  # of 18, some held out
    images = torch.stack([pixels(path) for path in train])
    assert torch.allclose(module.mean_image, images.mean(dim=0), atol=1e-5)

    test = sorted((tree / "cable/test").glob("*/*"))[0]
    result = saved.predict(test)
    expected = np.ones((128, 128))
    for size, stride in ((64, 32), (32, 16)):
        corners = [(i, j) for i in range(0, 129 - size, stride) for j in range(0, 129 - size, stride)]
        known = [embedded(module, image - module.mean_image, corner, size) for image in images for corner in corners]
        centred = pixels(test) - module.mean_image
        found = cdist([embedded(module, centred, corner, size) for corner in corners], known).min(axis=1)
        total, covering = np.zeros((128, 128)), np.zeros((128, 128))
        for (top, left), distance in zip(corners, found, strict=True):
            total[top : top + size, left : left + size] += distance
            covering[top : top + size, left : left + size] += 1
        expected *= total / covering
    assert np.ptp(expected) > 0
    assert np.allclose(result.scored_map, expected, atol=1e-3 * expected.max())
    assert result.score == pytest.approx(expected.max(), rel=1e-3)


def train_paths(checkpoint):
    """The images that were trained on."""
    cfg = OmegaConf.create(checkpoint["config"])
    data = build_data(cfg.data, build_module(cfg, announce=False))
    data.setup()
    return [record.image for record in data.splits.train]


@pytest.mark.slow
def test_the_journey(trained, tree, tmp_path, uniad):
    last = trained / "checkpoints/last.ckpt"
    use(uniad, trained, tree, tmp_path)
    status, _, err = uniad("export", f"ckpt_path={last}", f"output={tmp_path}/it.onnx", f"output_dir={tmp_path}/export")
    assert status == 0, err
    image = sorted((tree / "bottle/test").rglob("*.png"))[0]
    ours, theirs = (Detector.load(path).predict(image) for path in (last, tmp_path / "it.onnx"))
    assert np.allclose(ours.scored_map, theirs.scored_map, atol=1e-4 * ours.scored_map.max())
    assert ours.decision == theirs.decision


def test_a_checkpoint_from_within_the_training_has_no_patches_yet_and_says_so(trained, tmp_path, uniad):
    middle = trained / "checkpoints" / "at-step=4.ckpt"
    status, _, err = uniad("evaluate", f"ckpt_path={middle}", f"output_dir={tmp_path}")
    assert status == 2
    assert "from within a training of Patch-SVDD" in err
    assert "Traceback" not in err


def test_at_most_as_many_patches_are_kept_as_asked_for(tree, tmp_path, uniad):
    words = [*SMALL, "trainer.max_epochs=1", "model.max_patches=50", "validate_every=1", "optimizer.lr=0"]
    status, _, err = uniad("train", *words, f"data.root={tree}", f"output_dir={tmp_path}/few")
    assert status == 0, err
    all_of_them = [word for word in words if "max_patches" not in word]
    assert uniad("train", *all_of_them, f"data.root={tree}", f"output_dir={tmp_path}/all")[0] == 0
    few, whole = weights(tmp_path / "few"), weights(tmp_path / "all")
    for size in ("0", "1"):
        part, patches = few[f"banks.{size}.patches"], whole[f"banks.{size}.patches"]
        assert len(part) == min(50, len(patches))
        assert torch.cdist(part, patches).amin(dim=1).max() < 1e-3
    assert len(whole["banks.1.patches"]) > 50


@pytest.mark.slow
def test_it_resumes_in_the_middle_of_an_epoch_to_the_same_weights(trained, tree, tmp_path):
    middle = trained / "checkpoints" / "at-step=4.ckpt"
    run("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", f"ckpt_path={middle}")
    straight, resumed = weights(trained), weights(tmp_path / "run")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.slow
def test_two_processes_train_the_same(trained, tree, tmp_path):
    words = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    run("train", *words, f"data.root={tree}", f"output_dir={tmp_path}/run")
    one, two = weights(trained), weights(tmp_path / "run")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name].float(), two[name].float(), atol=1e-4), name


def test_mistakes_are_one_line(uniad, tree, tmp_path):
    for override, message in (
        ("data.image_size=96", "data.image_size=[96, 96]: Patch-SVDD needs at least 128 pixels"),
        ("model.stride=[16,3]", "model.stride=[16, 3]: the encoder steps by 2 pixels; expected even numbers"),
        ("model.stride=[24,8]", "patches of 64 pixels at a stride of 24 do not cover data.image_size=[128, 128]"),
        ("model.pairs=0", "model.pairs=0: expected a whole number of at least 1"),
        ("model.max_patches=0", "model.max_patches=0: expected a whole number of at least 1"),
        ("model.svdd_weight=-1", "model.svdd_weight=-1: expected at least 0"),
        ("loss=cosine", "loss=cosine: PatchSVDD does not use loss; leave it out"),
    ):
        status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
        assert status == 2
        assert message in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_two_synthetic_products_what_an_untrained_one_does_not_know(uniad, tmp_path):
    """Image AUROC of 0.755 as measured with seed 0, 0.638 untrained; at each pixel an untrained one is as good."""
    found = {}
    for name, more in (("trained", ["trainer.max_epochs=20"]), ("not", ["trainer.max_epochs=1", "optimizer.lr=0"])):
        words = ["experiment=demo", "model=patch_svdd", "data.categories=[gear,circuit]", "data.limit=20", *more]
        status, _, err = uniad("train", *words, f"data.root={tmp_path}/data", f"output_dir={tmp_path}/{name}")
        assert status == 0, err
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())["mean"]["image_auroc"]
    assert found["trained"] > 0.7 > found["not"]
