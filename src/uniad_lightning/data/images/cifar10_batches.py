"""Batch files of CIFAR-10 and CIFAR-100, python or binary version, read without running code from a pickle."""

import io
import pickle
import pickletools
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uniad_lightning.data.records import Packed
from uniad_lightning.errors import InputError, one_line

_PIXELS = 3 * 32 * 32  # bytes of an image: red, green, blue


class _Kind(NamedTuple):
    title: str
    key: str  # of the labels in the python version
    label_bytes: int  # before each image in the binary version; the last is the class
    classes: int


_CIFAR10 = _Kind("CIFAR-10", "labels", 1, 10)
_CIFAR100 = _Kind("CIFAR-100", "fine_labels", 2, 100)
_OF_CIFAR100 = ("train", "test")  # names of its files, without ending


def read_packed(image: Packed) -> np.ndarray:
    """One image (32, 32, 3) uint8 RGB of a batch, writable."""
    return load_batch(image.file)[0][image.position].copy()


@lru_cache(maxsize=7)  # all of CIFAR-10, 30 MB each, and CIFAR-100's train images, 150 MB; an image is a slice of one
def load_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of one batch file, CIFAR-100's where it has that name.

    Raises InputError for a file that is missing, truncated, or holds anything but plain data.
    """
    kind = _CIFAR100 if path.stem in _OF_CIFAR100 else _CIFAR10
    try:
        data, labels = _read_binary(path, kind) if path.suffix == ".bin" else _read_pickle(path, kind)
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise InputError(f"{path}: not a {kind.title} batch ({one_line(error)}); download the data set again") from None
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _read_binary(path: Path, kind: _Kind) -> tuple[np.ndarray, np.ndarray]:
    raw, row = np.fromfile(path, dtype=np.uint8), kind.label_bytes + _PIXELS
    if not len(raw) or len(raw) % row:
        raise ValueError(f"{len(raw)} bytes, expected a multiple of {row}")
    rows = raw.reshape(-1, row)
    return _checked(rows[:, kind.label_bytes :], rows[:, kind.label_bytes - 1], kind)


def _read_pickle(path: Path, kind: _Kind) -> tuple[np.ndarray, np.ndarray]:
    content = path.read_bytes()
    _refuse_far_memo(content)
    batch = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    if not isinstance(batch, dict) or not {"data", kind.key} <= batch.keys():
        raise ValueError(f"it has no 'data' and '{kind.key}'")
    data, labels = batch["data"], batch[kind.key]
    if not isinstance(data, _Array) or not isinstance(labels, list | _Array):
        raise ValueError(f"'data' is no array, or '{kind.key}' no list")
    if isinstance(labels, _Array):
        return _checked(data.value, labels.value, kind)
    if not all(isinstance(label, int) for label in labels):  # before NumPy unfolds lists in lists
        raise ValueError(f"labels that are no numbers from 0 to {kind.classes - 1}")
    return _checked(data.value, np.asarray(labels), kind)


def _refuse_far_memo(content: bytes) -> None:
    """Raises ValueError for a pickle that remembers a value at a far place, for which Python makes a table of GB."""
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= len(content):
            raise ValueError(f"it remembers a value at place {argument}")


def _checked(data: np.ndarray, labels: np.ndarray, kind: _Kind) -> tuple[np.ndarray, np.ndarray]:
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS or len(data) != len(labels):
        raise ValueError(f"data {data.dtype} {data.shape} and {len(labels)} labels, expected uint8 (N, 3072) and N")
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.min() < 0 or labels.max() >= kind.classes:
        raise ValueError(f"labels that are no numbers from 0 to {kind.classes - 1}")
    return data, labels.astype(np.int64)


class _Array:
    """Stands for a pickled array: its numbers, without calling NumPy's own unpickling functions."""

    def __init__(self, *_: object):
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data.encode("latin1") if isinstance(data, str) else data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: bytes, dtype: "_Dtype", shape: tuple, order: str) -> "_Array":
        self.value = np.frombuffer(data, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order)  # type: ignore[call-overload]
        return self


class _Dtype:
    """Stands for a pickled dtype: integers and floats only."""

    def __init__(self, code: str, *_: object):
        if code not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"it holds an array of order {state[1]!r}")
        self.order = state[1]


class _FromBuffer:
    def __new__(cls, data: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:  # type: ignore[misc]
        return _Array().fill(data, dtype, shape, order)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


class _Latin1(_FromBuffer):
    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        return text.encode("latin1")


class _NoBytes(_FromBuffer):
    def __new__(cls) -> bytes:  # type: ignore[misc]
        return b""


class _Scalar(_FromBuffer):
    def __new__(cls, dtype: _Dtype, data: bytes) -> int | float:  # type: ignore[misc]
        return _Array().fill(data, dtype, (), "C").value.item()


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays, lists, dicts, strings, bytes and numbers from classes of this file; refuses anything else."""

    _STANDINS = {
        "numpy.ndarray": _Array,
        "numpy.dtype": _Dtype,
        "numpy.core.multiarray._reconstruct": _Array,
        "numpy._core.multiarray._reconstruct": _Array,
        "numpy.core.numeric._frombuffer": _FromBuffer,
        "numpy._core.numeric._frombuffer": _FromBuffer,
        "numpy.core.multiarray.scalar": _Scalar,
        "numpy._core.multiarray.scalar": _Scalar,
        "_codecs.encode": _Latin1,
        "__builtin__.bytes": _NoBytes,  # how old protocols spell empty bytes
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._STANDINS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._STANDINS[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")
