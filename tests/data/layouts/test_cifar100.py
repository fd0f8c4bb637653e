"""CIFAR-100 as a folder of outliers: both versions of its files, damaged ones in one line, and no code of a pickle."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from support.settings import FEATURES
from support.trees import cifar10_arrays, cifar10_python
from uniad_lightning.data.defects.confetti import OutlierExposure
from uniad_lightning.data.defects.image_folder import ImageFolder
from uniad_lightning.data.images.cifar10_batches import load_batch
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.layouts.cifar100 import is_cifar100, list_cifar100
from uniad_lightning.errors import InputError


@pytest.fixture(autouse=True)
def forget_batches():
    """Tests rewrite files that the reader would remember."""
    load_batch.cache_clear()


def arrays(count=30):
    images, _ = cifar10_arrays(count, seed=7)
    return images, np.arange(count) % 20, 99 - np.arange(count) % 100


def python_version(root, **changes):
    (root / "cifar-100-python").mkdir(parents=True, exist_ok=True)
    images, coarse, fine = arrays()
    content = {"data": images, "coarse_labels": coarse.tolist(), "fine_labels": fine.tolist(), "batch_label": "x"}
    (root / "cifar-100-python/train").write_bytes(pickle.dumps({**content, **changes}, protocol=2))
    return root / "cifar-100-python"


def binary_version(root):
    (root / "cifar-100-binary").mkdir(parents=True)
    images, coarse, fine = arrays()
    rows = np.column_stack([coarse.astype(np.uint8), fine.astype(np.uint8), images])
    (root / "cifar-100-binary/train.bin").write_bytes(rows.tobytes())
    return root / "cifar-100-binary"


@pytest.mark.parametrize("write", [python_version, binary_version])
@pytest.mark.parametrize("inside", [True, False])
def test_both_versions_hold_the_same_images(tmp_path, write, inside):
    folder = write(tmp_path)
    root = folder if inside else tmp_path
    assert is_cifar100(root)
    found = list_cifar100(root)
    images, _, fine = arrays()
    assert len(found) == len(images) == 30
    assert np.array_equal(load_batch(found[0].file)[1], fine)
    for place in (0, 17, 29):
        assert np.array_equal(read_image(found[place]), images[place].reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize("write", [python_version, binary_version])
def test_outliers_are_its_images_at_the_size_of_the_good_one(tmp_path, write):
    outliers = OutlierExposure(folder=str(write(tmp_path)), share_good=0.0)
    known = {row.tobytes() for row in arrays()[0]}
    drawn = [outliers(np.zeros((32, 32, 3), np.uint8), np.random.default_rng(seed))[0] for seed in range(20)]
    assert all(mask.all() for _, mask in drawn)
    assert {image.transpose(2, 0, 1).tobytes() for image, _ in drawn} <= known
    assert len({image.tobytes() for image, _ in drawn}) > 5
    ((larger, _),) = outliers(np.zeros((48, 64, 3), np.uint8), np.random.default_rng(0))
    assert larger.shape == (48, 64, 3)


def test_cifar_10_and_a_folder_of_image_files_are_taken_too(tmp_path):
    cifar10 = ImageFolder(str(cifar10_python(tmp_path / "a")), key="k").draw((32, 32), np.random.default_rng(0))
    known = np.concatenate([cifar10_arrays(20, seed=seed)[0] for seed in range(5)])
    assert (known == cifar10.transpose(2, 0, 1).reshape(-1)).all(axis=1).any()
    (tmp_path / "b").mkdir()
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "b/train.png")
    assert not is_cifar100(tmp_path / "b")
    assert (ImageFolder(str(tmp_path / "b"), key="k").draw((4, 4), np.random.default_rng(0)) == (1, 2, 3)).all()


class Malicious:
    """Writes a file when it is unpickled as pickle would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refusal(folder):
    with pytest.raises(InputError) as error:
        OutlierExposure(folder=str(folder), share_good=0.0)(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_damaged_files_are_refused_in_one_line_and_nothing_runs(tmp_path):
    folder = python_version(tmp_path / "malicious", filenames=Malicious(tmp_path / "ran"))
    assert refusal(folder).startswith(f"{folder}/train: not a CIFAR-100 batch (it asks for posix.system)")
    assert not (tmp_path / "ran").exists()
    folder = python_version(tmp_path / "other", fine_labels=[100] * 30)
    assert "no numbers from 0 to 99" in refusal(folder)
    whole = (folder / "train").read_bytes()
    (folder / "train").write_bytes(whole[:5000])
    assert "not a CIFAR-100 batch" in refusal(folder)
    (folder / "train").write_bytes(pickle.dumps({"data": arrays()[0], "labels": [0] * 30}))
    assert "it has no 'data' and 'fine_labels'" in refusal(folder)
    (folder / "train").unlink()
    assert refusal(folder) == f"{folder}/train: not found; expected CIFAR-100's train images there, unpack it again"
    folder = binary_version(tmp_path / "cut")
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])
    assert "expected a multiple of 3074" in refusal(folder)


def test_a_folder_of_something_else_says_what_is_taken(tmp_path):
    (tmp_path / "train").write_bytes(b"no image")
    assert "data.defects.folder=" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("or CIFAR-100, unpacked (cifar-100-python or cifar-100-binary)")


def test_fcdd_oe_trains_on_it_from_the_command_line(uniad, tree, tmp_path):
    words = [*FEATURES, "model=fcdd", "model.frozen_modules=4", "model.field=16", "model.sigma=4", f"data.root={tree}"]
    given = [f"model.outlier_exposure={python_version(tmp_path)}", "trainer.max_epochs=1"]
    status, _, err = uniad("train", *words, *given, f"output_dir={tmp_path}/run")
    assert status == 0, err
    (tmp_path / "cifar-100-python/train").write_bytes(b"cut")
    load_batch.cache_clear()
    status, _, err = uniad("train", *words, *given, f"output_dir={tmp_path}/again")
    assert status == 2
    assert "train: not a CIFAR-100 batch" in err.splitlines()[-1]
    assert "Traceback" not in err
