"""model=uninformed_students: dense descriptors, losses and maps as rewrites have them, and two phases."""

import json

import numpy as np
import pytest
import torch

from support.checkpoints import weights
from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.models.uninformed_students import (
    PatchNetwork,
    compactness_loss,
    crops,
    disagreement,
    triplet_loss,
)

SMALL = [*FEATURES, "model=uninformed_students", "model.patch=17", "model.stride=1", "model.width=8", "model.crops=4"]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("patch", "parameters"), [(17, 2_996_480), (33, 1_616_000), (65, 2_320_640)])
def test_networks_have_the_published_sizes(patch, parameters):
    network = PatchNetwork(patch=patch, width=128, stride=1)
    assert count(network) == parameters
    decoder = torch.nn.Linear(128, 512)
    if patch == 65:  # Table A7: 9.55 M, the teacher and three students, each with a decoder
        assert 4 * (count(network) + count(decoder)) == 9_546_752


@pytest.mark.parametrize(
    ("patch", "stride"), [(17, 1), (33, 1), (33, 2), (33, 4), (65, 1), (65, 2), (65, 4), (65, 8)]
)  # fmt: skip
def test_dense_descriptors_are_those_of_each_patch_alone(patch, stride):
    torch.manual_seed(0)
    dense = PatchNetwork(patch=patch, width=16, stride=stride)
    single = PatchNetwork(patch=patch, width=16, stride={17: 1, 33: 4, 65: 8}[patch])  # all of its pools step
    single.load_state_dict(dense.state_dict())
    image = torch.rand(1, 3, patch + 11, patch + 9)
    with torch.no_grad():
        found = dense(image)
        assert found.shape == (1, 16, 11 // stride + 1, 9 // stride + 1)
        for i, j in np.ndindex(*found.shape[-2:]):
            top, left = i * stride, j * stride
            alone = single(image[..., top : top + patch, left : left + patch])
            assert alone.shape == (1, 16, 1, 1)
            assert torch.allclose(alone[..., 0, 0], found[..., i, j], atol=1e-5)


@pytest.mark.parametrize(("patch", "field"), [(17, 17), (33, 32), (65, 60)])
@pytest.mark.parametrize("stepping", [False, True])
def test_a_descriptor_depends_on_its_field_and_on_nothing_else(patch, field, stepping):
    torch.manual_seed(0)
    stride = {17: 1, 33: 4, 65: 8}[patch] if stepping else 1
    network = PatchNetwork(patch=patch, width=64, stride=stride)
    reached = torch.zeros(patch, patch)
    for _ in range(20):  # a pool passes the gradient of one pixel in four
        image = torch.rand(1, 3, patch, patch, requires_grad=True)
        network(image).abs().sum().backward()
        reached += image.grad.abs().sum(dim=(0, 1))
    rows, columns = reached.nonzero().T
    assert (int(rows.max()) + 1, int(columns.max()) + 1) == (field, field) == (network.field, network.field)
    assert (int(rows.min()), int(columns.min())) == (0, 0)


@pytest.mark.parametrize("patch", [17, 33, 65])
def test_with_its_margin_every_pixel_has_a_descriptor_of_what_is_around_it(patch):
    torch.manual_seed(0)
    network = PatchNetwork(patch=patch, width=16, stride=1)
    image = torch.rand(1, 3, 70, 66)
    with torch.no_grad():
        before = network(network.padded(image))
        image[..., 35, 33] += 5
        changed = (network(network.padded(image)) != before).any(dim=1)[0]
    assert before.shape == (1, 16, 70, 66)
    rows, columns = changed.nonzero().T
    assert abs(float(rows.double().mean()) - 35) < 1.5
    assert abs(float(columns.double().mean()) - 33) < 1.5


def test_crops_are_squares_of_the_image_that_reach_its_edges():
    image = torch.arange(2 * 3 * 20 * 24).view(2, 3, 20, 24).float()
    places = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.5, 0.25], [0.999, 0.0]]])
    found = crops(image, places, 8)
    corners = [[(0, 0), (12, 16)], [(6, 4), (12, 0)]]
    for b, k in np.ndindex(2, 2):
        top, left = corners[b][k]
        assert torch.equal(found[b, k], image[b, :, top : top + 8, left : left + 8])


def test_losses_are_those_of_rewrites():
    generator = torch.Generator().manual_seed(0)
    anchor, near, far = (torch.randn(2, 5, 4, generator=generator) for _ in range(3))
    total = 0.0
    for b, k in np.ndindex(2, 5):
        a, p, n = (part[b, k].double().numpy() for part in (anchor, near, far))
        plus, minus = ((a - p) ** 2).sum(), min(((a - n) ** 2).sum(), ((p - n) ** 2).sum())
        total += max(0.0, 1 + plus - minus)
    assert float(triplet_loss(anchor, near, far)) == pytest.approx(total / 10, rel=1e-5)
    sums = []
    for one in anchor.double().numpy():
        correlation = np.corrcoef(one, rowvar=False)
        sums.append(np.abs(correlation[~np.eye(4, dtype=bool)]).mean())
    assert float(compactness_loss(anchor)) == pytest.approx(np.mean(sums), rel=1e-5)


def test_disagreement_is_that_of_a_rewrite_and_nothing_where_all_say_the_same():
    generator = torch.Generator().manual_seed(0)
    students, target = torch.randn(3, 2, 6, 4, 5, generator=generator), torch.randn(2, 6, 4, 5, generator=generator)
    found = disagreement(students, target)
    for b, i, j in np.ndindex(2, 4, 5):
        mu, t = students[:, b, :, i, j].double().numpy(), target[b, :, i, j].double().numpy()
        error = ((mu.mean(axis=0) - t) ** 2).sum()
        variance = np.mean([m @ m for m in mu]) - mu.mean(axis=0) @ mu.mean(axis=0)
        assert np.allclose(found[b, i, j].numpy(), [error, variance], rtol=1e-4)
    assert torch.equal(disagreement(target.expand(3, 2, 6, 4, 5), target).round(decimals=6), torch.zeros(2, 4, 5, 2))


def test_the_map_is_the_sum_of_scaled_error_and_variance(uniad, tree, tmp_path):
    words = [*SMALL, "trainer.max_epochs=3", f"data.root={tree}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    module = Detector.load(tmp_path / "run").engine.module
    assert module.taught
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        padded = module.teacher.padded(image)
        assert padded.shape == (1, 3, 80, 80)
        target = (module.teacher(padded) - module.descriptors.mean.view(-1, 1, 1)) / module.descriptors.std.view(
            -1, 1, 1
        )
        mu = torch.stack([student(padded) for student in module.students])
        parts = [(mu.mean(0) - target).square().sum(1), mu.var(dim=0, correction=0).sum(1)]
        scaled = zip(parts, module.disagreements.mean, module.disagreements.std, strict=True)
        expected = sum((part - mean) / std for part, mean, std in scaled)
        assert torch.allclose(module.anomaly_map({"image": image}), expected, rtol=1e-3, atol=1e-3)
    assert module.disagreements.fitted
    assert (module.disagreements.mean > 0).all()


def test_each_phase_changes_only_what_learns_in_it(uniad, tree, tmp_path):
    """4 batches an epoch: the teacher learns in the first two epochs of four."""
    words = [
        *SMALL,
        "trainer.max_epochs=4",
        f"data.root={tree}",
        f"output_dir={tmp_path}/run",
        "optimizer.weight_decay=0.1",
    ]
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=4"]
    status, _, err = uniad("train", *words, *keep)
    assert status == 0, err
    folder = tmp_path / "run/checkpoints"
    first, second, third = (
        torch.load(folder / f"at-step={step}.ckpt", weights_only=True)["state_dict"] for step in (4, 8, 12)
    )
    last = weights(tmp_path / "run")
    for name in last:
        part = name.partition(".")[0]
        if part in ("teacher", "decoder"):
            assert not torch.equal(first[name], second[name]), name
            assert torch.equal(second[name], last[name]), name
        elif part == "students":
            assert torch.equal(first[name], second[name]), name
            assert not torch.equal(third[name], last[name]), name
    assert not second["descriptors.fitted"]
    assert third["descriptors.fitted"]
    assert not third["disagreements.fitted"]
    assert last["disagreements.fitted"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.patch=20", "model.patch=20: expected one of 17, 33, 65, sides in pixels"),
        ("model.stride=2", "model.stride=2: expected one of 1 with model.patch=17"),
        ("model.teacher_share=1", "model.teacher_share=1: leaves the students no step; expected below 1"),
        ("model.teacher_share=0", "model.teacher_share=0: expected more than 0"),
        ("model.students=0", "model.students=0: expected a whole number of at least 1"),
        ("model.crops=1", "model.crops=1: expected a whole number of at least 2"),
        ("data.image_size=16", "data.image_size=[16, 16]: smaller than model.patch=17; enlarge the image"),
        ("backbone.trainable=true", "backbone.trainable=true: the backbone of model=uninformed_students stays frozen"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=uninformed_students", "data.categories=[fabric]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=8", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["pixel_auroc"] > 0.82  # untrained networks reach 0.71 and 0.72
    assert mean["image_auroc"] > 0.77
