"""Loaders of the batches of a split: of images, or of cached features."""

import os
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import lightning as L
from torch.utils.data import DataLoader

from uniad_lightning.data.feature_cache.cached_split import CachedSplit
from uniad_lightning.data.sampling import Draw
from uniad_lightning.types import Batch


class Batches(Sized, Protocol):
    """A sampler of batches: the images of each, as `int` or `Draw`."""

    def __iter__(self) -> Iterator[list[Any]]: ...


def usable_cores() -> int:
    """The cores that this process may use, beyond which more workers only take turns."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def feeds_gpu(trainer: L.Trainer) -> bool:
    """Whether batches go to a GPU, so that their memory is worth pinning; elsewhere that would open a CUDA context."""
    return trainer.strategy.root_device.type == "cuda"


class ResumableLoader(DataLoader):
    """A loader with a state, so that Lightning resumes within an epoch; `TrainBatches` asks the trainer where."""

    def state_dict(self) -> dict:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class CachedLoader:
    """Loads `batches` of cached features for Lightning, each while the one before is used."""

    def __init__(self, *, split: CachedSplit, batches: Batches, masks: bool, pin_memory: bool):
        self.split = split
        self.batches = batches
        self.masks = masks
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            waiting = None
            for batch in self.batches:
                images = [item.place if isinstance(item, Draw) else item for item in batch]
                following = reader.submit(self._read, images)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _read(self, images: Sequence[int]) -> Batch:
        batch = self.split.batch(images, masks=self.masks)
        if self.pin_memory and batch["feature"].device.type == "cpu":
            batch["feature"] = batch["feature"].pin_memory()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep; Lightning asks when it saves in the middle of an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: `batches` asks the trainer where to continue."""
