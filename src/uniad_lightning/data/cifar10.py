"""CIFAR-10 as its authors publish it: `cifar-10-batches-py` read without running what a pickle may hold."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from uniad_lightning.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays, lists, strings, bytes and numbers; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_cifar10(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 RGB and labels (N,) int64 of one split, `train` or `test`.

    `root` is the folder `cifar-10-batches-py` or the one above it.

    Raises InputError when a batch is missing, truncated or holds anything but plain data.
    """
    folder = root if root.name == "cifar-10-batches-py" else root / "cifar-10-batches-py"
    images, labels = [], []
    for name in _BATCHES[split]:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: not found; expected the CIFAR-10 python version, unpacked below {root}")
        try:
            with path.open("rb") as file:
                batch = _ArrayUnpickler(file, encoding="latin1").load()
            images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(np.asarray(batch["labels"], dtype=np.int64))
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: not a CIFAR-10 batch ({error}); download the data set again") from None
    return np.concatenate(images), np.concatenate(labels)
