"""CIFAR-10 as its authors publish it: the python version or the binary one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uniad_lightning.data.images.cifar10_batches import load_batch
from uniad_lightning.data.layouts.listing import LayoutError, check_root, choose
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Packed, Record, Splits
from uniad_lightning.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SUFFIX = {"cifar-10-batches-py": "", "cifar-10-batches-bin": ".bin"}
_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}


def list_cifar10(root: Path, *, categories: Sequence[str] | None = None) -> Splits:
    """Records of the classes, all of them or those named, each image good; `data.normal_classes` makes some anomalies.

    `root` is the folder `cifar-10-batches-py`, `cifar-10-batches-bin`, or the one above it.

    Raises InputError when a batch is missing, truncated, or holds anything but plain data.
    """
    chosen = set(choose(categories, CLASSES, root))
    parts = {}
    for split, names in _BATCHES.items():
        records = []
        for path in _files(root, names):
            labels = load_batch(path)[1].tolist()
            named = [(i, CLASSES[label]) for i, label in enumerate(labels) if CLASSES[label] in chosen]
            records += [Record(Packed(path, i), (), name, GOOD, 0) for i, name in named]
        parts[split] = tuple(sorted(records, key=lambda record: record.category))
    return Splits(tuple(sorted(chosen)), parts["train"], parts["test"])


def read_cifar10(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 RGB and labels (N,) int64 of one split, `train` or `test`."""
    batches = [load_batch(path) for path in _files(root, _BATCHES[split])]
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _files(root: Path, names: Sequence[str]) -> list[Path]:
    check_root(root, "cifar-10-batches-py or cifar-10-batches-bin")
    for folder, suffix in _SUFFIX.items():
        batches_in = root if root.resolve().name == folder else root / folder
        if not batches_in.is_dir():
            continue
        paths = [batches_in / f"{name}{suffix}" for name in names]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: not found; expected all of CIFAR-10's batches there, unpack it again")
        return paths
    raise LayoutError(
        f"data.root: {root.absolute()} holds neither {' nor '.join(_SUFFIX)}; expected CIFAR-10, unpacked"
    )


def _recognise(root: Path) -> bool:
    try:
        return root.resolve().name in _SUFFIX or any((root / folder).is_dir() for folder in _SUFFIX)
    except OSError:
        return False


CIFAR10 = Published(
    title="CIFAR-10",
    layout="""\
ROOT/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch           (the python version)
or
ROOT/cifar-10-batches-bin/data_batch_1.bin ... data_batch_5.bin, test_batch.bin   (the binary version)""",
    licence="none stated; its authors ask for the citation",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    reference="A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
    images={name: Images(5000, 0, 1000, 0) for name in CLASSES},
    listing=list_cifar10,
    recognise=_recognise,
)
