"""model.teacher_images: a teacher that learns from a folder beforehand, is kept and reused; resuming, two processes."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from support.checkpoints import weights
from support.settings import FEATURES, UNIAD
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.records import Record
from uniad_lightning.detectors.distillation import Distillation

SMALL = [
    *FEATURES, "model=uninformed_students", "model.patch=17", "model.stride=1", "model.width=8", "model.crops=4",
    "model.students=2", "model.teacher_steps=12", "trainer.max_epochs=2", "data.limit=4",
]  # fmt: skip
REUSED = "which learned from the same images with the same settings"


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A folder of images that are no product, of several sizes, some in a subfolder."""
    folder, rng = tmp_path_factory.mktemp("others"), np.random.default_rng(0)
    (folder / "more").mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (70 + i, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if i % 2 else ".") / f"{i}.png")
    return folder


def words(tree, others, folder, *more):
    cache = f"data.cache_dir={folder.parent}/cache"
    return [*SMALL, f"model.teacher_images={others}", f"data.root={tree}", f"output_dir={folder}", cache, *more]


def kept_in(folder):
    return sorted((folder / "cache/teachers").glob("*.pt"))


def test_the_teacher_is_kept_and_the_next_training_uses_it(uniad, tree, others, tmp_path):
    status, out, err = uniad("train", *words(tree, others, tmp_path / "one"))
    assert status == 0, err
    assert REUSED not in out
    assert "teacher: " in err  # the bar
    (path,) = kept_in(tmp_path)
    written = path.stat().st_mtime_ns
    status, out, err = uniad("train", *words(tree, others, tmp_path / "two"))
    assert status == 0, err
    assert f"teacher: the one in {path}, {REUSED}" in out
    assert "teacher: " not in err
    assert path.stat().st_mtime_ns == written
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    tensors = torch.load(path, weights_only=True)["tensors"]
    assert tensors.keys() == {name for name in one if name.startswith(("teacher.", "decoder."))}
    assert all(torch.equal(value, one[name]) for name, value in tensors.items())
    status, _, err = uniad("evaluate", f"ckpt_path={tmp_path}/two", f"output_dir={tmp_path}/evaluated")
    assert status == 0, err


def test_the_students_learn_from_the_first_step_on(tree, others, tmp_path):
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=1"]
    assert run_command("train", words(tree, others, tmp_path / "run", *keep, "optimizer.weight_decay=0.1")) == 0
    first = torch.load(tmp_path / "run/checkpoints/at-step=1.ckpt", weights_only=True)["state_dict"]
    last = weights(tmp_path / "run")
    for name, value in first.items():
        if name.startswith(("teacher.", "decoder.", "descriptors.")):
            assert torch.equal(value, last[name]), name
        elif name.startswith("students."):
            assert not torch.equal(value, last[name]), name
    assert first["descriptors.fitted"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ["model.teacher_steps=13"],
        ["seed=1"],
        ["model.crops=5"],
        ["optimizer.lr=1e-3"],
        ["data.image_size=72"],
        ["backbone.weights=tiny.safetensors"],
    ],
)  # fmt: skip
def test_what_decides_the_teacher_is_in_its_name(tree, others, tmp_path, change):
    """A training that would have another teacher makes it; one whose teacher would be the same does not."""
    settle = ["model.teacher_steps=1", "trainer.max_epochs=1"]
    base = words(tree, others, tmp_path / "one", *settle)
    assert run_command("train", base) == 0
    assert run_command("train", [*words(tree, others, tmp_path / "two", *settle), *change]) == 0
    assert len(kept_in(tmp_path)) == 2
    same = ["model.students=3", "data.limit=3"]
    assert run_command("train", [*words(tree, others, tmp_path / "three", *settle), *same]) == 0
    assert len(kept_in(tmp_path)) == 2


def test_a_changed_image_is_another_teacher(tree, others, tmp_path):
    copy = shutil.copytree(others, tmp_path / "others")
    settle = ["model.teacher_steps=1", "trainer.max_epochs=1"]
    assert run_command("train", words(tree, copy, tmp_path / "one", *settle)) == 0
    Image.new("RGB", (80, 80), (200, 0, 0)).save(copy / "0.png")
    assert run_command("train", words(tree, copy, tmp_path / "two", *settle)) == 0
    assert len(kept_in(tmp_path)) == 2


@pytest.mark.slow
def test_with_the_cache_off_nothing_is_kept_and_the_teacher_is_the_same(tree, others, tmp_path):
    assert run_command("train", words(tree, others, tmp_path / "one")) == 0
    assert run_command("train", words(tree, others, tmp_path / "two", "data.cache=off")) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(kept_in(tmp_path)) == 1


def test_a_damaged_teacher_is_refused_in_one_line(uniad, tree, others, tmp_path):
    assert run_command("train", words(tree, others, tmp_path / "one", "model.teacher_steps=1")) == 0
    (path,) = kept_in(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, _, err = uniad("train", *words(tree, others, tmp_path / "two", "model.teacher_steps=1"))
    assert status == 2
    (line,) = [line for line in err.splitlines() if "warning" not in line.lower()]
    assert f"{path}: is damaged" in line
    assert "or delete it, and it is made again" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.teacher_images=absent", "model.teacher_images=absent: is no folder; expected one of images"),
        ("model.teacher_images={empty}", "empty: holds no images; expected a folder of them"),
        ("model.teacher_steps=0", "model.teacher_steps=0: expected a whole number of at least 1"),
        ("optimizer.lr=1e20", "the teacher's loss is"),
        ("optimizer.lr=-1", "optimizer or schedule: a value does not fit"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, others, tmp_path, override, message):
    (tmp_path / "empty").mkdir()
    override = override.format(empty=tmp_path / "empty")
    status, _, err = uniad("train", *words(tree, others, tmp_path / "run", override))
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not kept_in(tmp_path)


def test_the_images_come_in_a_new_order_each_time_and_all_of_them(others):
    learning = torch.nn.Linear(1, 1)
    settings = {"loss": None, "optimizer": torch.optim.SGD, "batch_size": 4, "num_workers": 0}
    first, second = (
        [place for batch in Distillation(learning, steps=9, seed=seed, **settings)._order(6) for place in batch]
        for seed in (0, 1)
    )
    assert len(first) == 36
    orders = [first[start : start + 6] for start in range(0, 36, 6)]
    assert all(sorted(order) == [*range(6)] for order in orders)
    assert len(set(map(tuple, orders))) > 3
    assert first != second


def test_it_learns_what_the_loss_asks(others):
    """A network of one number learns the mean of the images."""
    records = [Record(path, (), "", "good", 0) for path in sorted(others.rglob("*.png"))]
    dataset = InspectionDataset(
        records=records, categories=[""], image_size=(8, 8), mean=[0.0] * 3, std=[1.0] * 3,
        augmentation=Augmentation(flip=0, flip_vertical=0, rotate=0, colour=0, seed=0),
    )  # fmt: skip
    learning = torch.nn.Linear(1, 1)

    def loss(image):
        return {"apart": (learning(torch.zeros(1)) - image.mean()).square().sum()}

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    Distillation(
        learning, loss=loss, optimizer=sgd, steps=60, batch_size=3, num_workers=0, seed=0
    )._learn(dataset, torch.device("cpu"), shown=False)  # fmt: skip
    mean = torch.stack([dataset[i]["image"] for i in range(6)]).mean()
    assert learning.bias.item() == pytest.approx(mean.item(), abs=0.02)


def run(*command):
    done = subprocess.run([UNIAD, "train", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_the_same_and_a_resumed_training_bit_for_bit(tree, others, tmp_path):
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=1"]
    folders = {name: tmp_path / name / "run" for name in ("one", "two")}  # a cache each
    run(*words(tree, others, folders["one"], *keep))
    run(*words(tree, others, folders["two"], "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"))
    assert len(kept_in(tmp_path / "two")) == 1
    middle = folders["one"] / "checkpoints/at-step=1.ckpt"
    gone = tmp_path / "gone"
    others.rename(gone)  # a resumed training needs neither the images nor the kept teacher
    try:
        shutil.rmtree(tmp_path / "one/cache")
        run(*words(tree, others, tmp_path / "one/resumed", f"ckpt_path={middle}"))
    finally:
        gone.rename(others)
    one, two, resumed = weights(folders["one"]), weights(folders["two"]), weights(tmp_path / "one/resumed")
    assert one.keys() == two.keys() == resumed.keys()
    for name, value in one.items():
        assert torch.equal(value, resumed[name]), name
        if name.startswith(("teacher.", "decoder.")):
            assert torch.equal(value, two[name]), name
        assert torch.allclose(value.float(), two[name].float(), rtol=1e-3, atol=1e-4), name
