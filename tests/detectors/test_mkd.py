"""model=mkd: networks of the published size, distances, gradients and maps as rewrites have them, what it refuses."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter, grey_opening

from support.paths import SHARED
from support.settings import FEATURES
from uniad_lightning.detectors.mkd import MKD
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.mkd import Cloner, level_distances, opened

VGG = {"channels": [128, 256, 512, 512], "strides": [4, 8, 16, 32]}
VGG_WEIGHTS = SHARED / "weights/vgg16.safetensors"
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def backbone(**more):
    settings = {"name": "resnet18", "levels": [1, 2], "grid": [4, 4], "weights": "tiny.safetensors"}
    settings["arguments"] = {"channels": [32, 64, 128, 128], "stem_width": 16, "stem_type": "deep"}
    return Backbone(**{**settings, **more})


def detector(*, teacher=None, **more):
    settings = {"grid": 4, "width": 8, "bias": False, "relu": True, "mse_weight": 0.5, "scored_levels": 1, "sigma": 2.0}
    return MKD(
        backbone=teacher or backbone(), optimizer=torch.optim.Adam, schedule=None, seed=0,
        **{**settings, "per_image": False, **more},
    ).eval()  # fmt: skip


def images(count=2, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("bias", "count"), [(False, 343_984), (True, 345_536)])
def test_the_cloner_has_the_published_size(bias, count):
    cloner = Cloner(**VGG, width=16, bias=bias, relu=True)  # Table A7: 0.34 M
    assert sum(parameter.numel() for parameter in cloner.parameters()) == count
    sizes = [tuple(level.shape) for level in cloner(images(size=128))]
    assert sizes == [(2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8), (2, 512, 4, 4)]


def test_a_level_and_a_pool_are_what_vgg_has_after_its_pool():
    vgg = Backbone(name="vgg16", levels=[4, 5], grid=[4, 4], weights="random")
    before, after = vgg.pyramid(images())
    assert torch.equal(F.max_pool2d(before, 2), after)
    assert [tuple(level.shape) for level in (before, after)] == [(2, 512, 4, 4), (2, 512, 2, 2)]


def test_levels_have_the_sizes_of_the_model_and_the_values_of_the_grid():
    teacher = backbone(grid=[16, 16])
    first, second = teacher.pyramid(images())
    aligned = teacher(images())
    assert torch.equal(aligned[:, :32], first)
    assert tuple(second.shape) == (2, 64, 8, 8)
    assert torch.equal(aligned[:, 32:], F.interpolate(second, size=16, mode="bilinear", align_corners=True))


def test_distances_are_those_of_a_rewrite():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 4, 3), (2, 7, 2, 2)]
    taught, copied = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    direction, value = level_distances(taught, copied)
    for image, level in np.ndindex(2, 2):
        a, b = (levels[level][image].double().numpy().ravel() for levels in (taught, copied))
        assert float(value[image, level]) == pytest.approx(
            sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / a.size
        )
        cosine = (a @ b) / np.sqrt((a @ a) * (b @ b))
        assert float(direction[image, level]) == pytest.approx(1 - cosine, rel=1e-4)


class Same(torch.nn.Module):
    """A cloner that has learnt all: it answers as its teacher does."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher = teacher

    def forward(self, image):
        return [F.max_pool2d(level, 2) for level in self.teacher.pyramid(image)]


def test_a_cloner_that_answers_as_its_teacher_leaves_no_distance_and_no_map():
    module = detector()
    batch = {"image": images()}
    before = module.image_scores(batch, torch.zeros(2, 64, 64))
    module.network = Same(module.backbone)
    after = module.image_scores(batch, torch.zeros(2, 64, 64))
    assert (before > 0.1).all()
    assert torch.allclose(after, torch.zeros(2), atol=1e-6)
    assert module.anomaly_map(batch).abs().max() < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_gradient_is_that_of_the_loss_of_all_levels(weight):
    """By differences: along the gradient the loss of an image rises by the gradient's length."""
    module = detector(mse_weight=weight)
    image = images()
    gradient = module.gradients(image)

    @torch.no_grad()
    def loss(moved):
        levels = [F.max_pool2d(level, 2) for level in module.backbone.pyramid(moved)]
        total = torch.zeros(len(moved), dtype=torch.float64)
        for a, b in zip(levels, module.network(moved), strict=True):
            a, b = a.flatten(1).double(), b.flatten(1).double()
            total += 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)) + weight * (a - b).square().mean(1)
        return total

    for i in range(2):
        length = gradient[i].norm()
        step = 0.002 * gradient[i : i + 1] / length
        rise = (loss(image[i : i + 1] + step) - loss(image[i : i + 1] - step)) / 0.004
        assert float(rise) == pytest.approx(float(length), rel=0.02)
    alone = module.gradients(image[1:])
    assert torch.allclose(alone[0], gradient[1], atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("per_image", [False, True])
def test_map_and_score_are_those_of_a_rewrite(per_image):
    module = detector(per_image=per_image)
    batch = {"image": images()}
    gradients = module.gradients(batch["image"]).double().numpy()
    with torch.inference_mode():
        maps = module.anomaly_map({"image": batch["image"].clone()})
        scores = module.image_scores(batch, maps)
        levels = [F.max_pool2d(level, 2) for level in module.backbone.pyramid(batch["image"])]
        last = [part[-1].double().numpy() for part in (levels, module.network(batch["image"]))]
    for i in range(2):
        grey = np.abs(gradients[i]).sum(axis=0)
        grey = np.minimum(grey, np.percentile(grey, 99))
        if per_image:
            grey = (grey - grey.min()) / (grey.max() - grey.min())
        expected = grey_opening(gaussian_filter(grey, 2.0), footprint=CROSS)
        assert np.allclose(maps[i].numpy(), expected, atol=1e-5 * np.ptp(expected))
        a, b = (part[i].ravel() for part in last)
        distance = 1 - (a @ b) / np.sqrt((a @ a) * (b @ b)) + 0.5 * ((a - b) ** 2).mean()
        assert float(scores[i]) == pytest.approx(distance, rel=1e-4)
    assert not per_image or maps.max() <= 1


def test_of_tiles_the_largest_score_is_the_images():
    module = detector()
    batch = {"image": images(4)}
    with torch.no_grad():
        single = module.image_scores(batch, torch.zeros(4, 64, 64))
        assert torch.equal(module.image_scores(batch, torch.zeros(2, 64, 64)), single.view(2, 2).amax(dim=1))


def test_opening_is_that_of_scipy():
    maps = torch.rand(3, 20, 17, generator=torch.Generator().manual_seed(0))
    expected = np.stack([grey_opening(one.numpy(), footprint=CROSS) for one in maps])
    assert np.array_equal(opened(maps).numpy(), expected)


def test_the_teacher_stays_as_it_is_and_the_cloner_learns(uniad, tree, tmp_path):
    words = [*FEATURES, "model=mkd", "model.scored_levels=2", "backbone.weights=tiny.safetensors"]
    words += ["trainer.max_epochs=2", f"data.root={tree}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    trained = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    teacher = backbone().state_dict()
    assert all(torch.equal(trained[f"backbone.{name}"], value) for name, value in teacher.items())
    assert any(trained[name].ne(0).any() for name in trained if name.startswith("network") and "running_mean" in name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.scored_levels=3", "model.scored_levels=3: the backbone has 2 levels; expected at most as many"),
        ("model.width=0", "model.width=0: expected a whole number of at least 1"),
        ("model.per_image=1", "model.per_image=1: expected true or false"),
        ("model.sigma=100", "model.sigma=100: reaches 400 pixels, more than the map (64, 64) has"),
        ("model.mse_weight=-1", "model.mse_weight=-1: expected at least 0"),
        ("data.image_size=72", "data.image_size=[72, 72]: model=mkd halves images down to 1/16; give multiples of 16"),
        ("backbone.trainable=true", "backbone.trainable=true: the backbone of model=mkd teaches and stays frozen"),
        ("data.cache=memory", "data.cache=memory: MKD trains on images, and needs more than their features"),
        ("score=mean", "score=mean: MKD does not use score; leave it out"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    words = [*FEATURES, "model=mkd", "model.scored_levels=2", f"data.root={tree}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words, override)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_a_teacher_whose_levels_do_not_halve_the_image_is_refused():
    with pytest.raises(InputError, match=r"backbone.levels: strides of \[32, 32\] after a 2x2 pool"):
        detector(teacher=Backbone(name="vit_tiny_patch16_224", levels=[0, 1], grid=[4, 4], weights="random"))


def test_a_teacher_with_negative_levels_can_be_copied():
    teacher = Backbone(name="tf_efficientnet_lite0", levels=[1, 2], grid=[4, 4], weights="random")
    module = detector(teacher=teacher, relu=False)
    assert min(float(level.detach().min()) for level in module.network(images())) < 0
    assert torch.isfinite(module.anomaly_map({"image": images()})).all()


@pytest.mark.skipif(not VGG_WEIGHTS.is_file(), reason="the weights of VGG-16 are not here")
def test_weights_of_a_file_arrive_in_the_teacher():
    teacher = Backbone(name="vgg16", levels=[1, 2, 3, 4], grid=[4, 4], weights=str(VGG_WEIGHTS))
    given = load_file(VGG_WEIGHTS)
    held = {name.replace("_", "."): value for name, value in teacher.model.state_dict().items()}
    assert held.keys() == given.keys()
    assert all(torch.equal(held[name], value.float()) for name, value in given.items())


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=mkd", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=8", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["pixel_auroc"] > 0.85
    assert mean["image_auroc"] > 0.75
