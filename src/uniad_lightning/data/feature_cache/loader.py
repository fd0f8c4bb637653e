"""Batches of features that a store keeps, without decoding an image; and the filling of the store."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.store import (
    MISSING,
    DiskStore,
    MemoryStore,
    Store,
    StoreError,
    pack_mask,
    signatures,
    unpack_mask,
)
from uniad_lightning.data.feature_cache.usage import make_room
from uniad_lightning.data.sampling import Draw
from uniad_lightning.errors import InputError, complain, did_you_mean
from uniad_lightning.types import Batch

RESIDENT_SHARE = 0.5  # of a GPU's free memory that features may take


class Batches(Sized, Protocol):
    """What says which images a batch has."""

    def __iter__(self) -> Iterator[Sequence[int | Draw]]: ...


class CachedSplit:
    """The images of one split, their features in a store; `fill` puts those there that are missing."""

    def __init__(self, *, dataset: InspectionDataset, store: Store):
        self.dataset = dataset
        self.store = store
        self.signatures = signatures(dataset.records)
        self.slots = store.find(self.signatures)
        self._resident: Tensor | None = None  # (n, h, w, C)
        numbers = dataset.numbers
        self.labels = torch.tensor([record.label for record in dataset.records])
        self.categories = torch.tensor([numbers[record.category] for record in dataset.records])
        self.has_mask = torch.tensor([bool(record.masks) or record.label == 0 for record in dataset.records])

    def missing(self) -> list[int]:
        """The images whose features the store does not have."""
        return np.flatnonzero(self.slots == MISSING).tolist()

    def fill(
        self,
        images: Sequence[int],
        *,
        extract: Callable[[Tensor], Tensor],
        batch_size: int,
        num_workers: int,
        show: bool,
    ) -> None:
        """Compute and keep the features of these images; what an interruption leaves undone is done the next time."""
        if not images:
            return
        loader: Iterable[Batch] = DataLoader(
            Subset(self.dataset, images),
            batch_size=batch_size,
            collate_fn=self.dataset.collate,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        pace = 0.2 if sys.stderr.isatty() else 30  # in a log file every refresh is a line
        with tqdm(total=len(images), desc="features", unit="image", disable=not show, mininterval=pace) as bar:
            for batch in loader:
                chosen = batch["index"].tolist()
                masks = [pack_mask(mask) for mask in batch["mask"].numpy()]
                self.store.add([self.signatures[i] for i in chosen], extract(batch["image"]), masks)
                bar.update(len(chosen))

    def refresh(self) -> None:
        """Look again at what the store has."""
        self.slots = self.store.find(self.signatures)

    def move_to(self, device: torch.device) -> None:
        """Keep all features on a GPU where they fit, so that a batch is one indexing there."""
        if device.type != "cuda" or not len(self.slots):
            return
        one = self.store.features(self.slots[:1]).permute(0, 2, 3, 1)
        free, _ = torch.cuda.mem_get_info(device)
        if one.nbytes * len(self.slots) > RESIDENT_SHARE * free:
            return
        self._resident = torch.empty((len(self.slots), *one.shape[1:]), dtype=one.dtype, device=device)
        for start in range(0, len(self.slots), 256):
            part = self.store.features(self.slots[start : start + 256]).permute(0, 2, 3, 1)
            self._resident[start : start + len(part)] = part.to(device)

    def features(self, images: Sequence[int]) -> Tensor:
        """Features (B, C, h, w) float16 of these images."""
        if self._resident is not None:
            chosen = torch.tensor(images, dtype=torch.int64).to(self._resident.device, non_blocking=True)
            return self._resident[chosen].permute(0, 3, 1, 2)
        return self.store.features(self.slots[list(images)])

    def batch(self, images: Sequence[int], *, masks: bool) -> Batch:
        """A `Batch` with `feature` in place of `image`, and without `mask` unless asked for."""
        chosen = torch.tensor(images, dtype=torch.int64)
        batch: Batch = {
            "feature": self.features(images),
            "has_mask": self.has_mask[chosen],
            "label": self.labels[chosen],
            "category": self.categories[chosen],
            "index": chosen,
        }
        if masks:
            size = self.dataset.map_size
            full = [unpack_mask(self.store.mask(self.signatures[i]), size) for i in images]
            batch["mask"] = torch.from_numpy(np.array(full, dtype=bool).reshape(len(images), *size))
        return batch


class FeatureCache:
    """The feature cache of one data module: what is asked of it, and the `splits` whose features it has by now.

    `mode` is `auto`, `off`, `memory` or `disk`; with `auto` what cannot be cached is computed anew each time. `size` is
    what all stores in `folder` may take together, in GB, None for a tenth of the disk.

    Raises InputError for another mode or size.
    """

    MODES = ("auto", "off", "memory", "disk")

    def __init__(self, *, mode: str, folder: Path, size: float | None = None):
        if mode not in self.MODES:
            hint = did_you_mean(str(mode), self.MODES)
            raise InputError(f"data.cache={mode}: expected one of {', '.join(self.MODES)}.{hint}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | float) or not size > 0):
            raise InputError(f"data.cache_size={size}: expected GB above 0, or null for a tenth of the disk")
        self.mode = mode
        self.folder = folder
        self.most = None if size is None else int(size * 1e9)
        self.splits: dict[str, CachedSplit] = {}

    def refuse(self, reason: str) -> None:
        """Raises InputError where the cache was asked for, with the `reason`; with `auto` there is none then."""
        if self.mode in ("memory", "disk"):
            raise InputError(f"data.cache={self.mode}: {reason}; use data.cache=off")

    def fill(
        self,
        name: str,
        dataset: InspectionDataset,
        *,
        about: Mapping[str, Any],
        shape: Sequence[int],
        extract: Callable[[Tensor], Tensor],
        batch_size: int,
        num_workers: int,
        trainer: L.Trainer,
    ) -> None:
        """Have the features of a split, of which each rank of the `trainer` computes its share of what is missing.

        Raises InputError when the folder cannot be written or has no room; with `auto` that is a warning.
        """
        split = self._agreed(trainer, lambda: self._open(dataset, about, shape, makes_room=trainer.local_rank == 0))
        # The second time is for a rank that does not see the others' files.
        for share in (slice(trainer.global_rank, None, trainer.world_size), slice(None)):
            if split is None:
                return

            def filled(split: CachedSplit = split, share: slice = share) -> CachedSplit:
                split.fill(
                    split.missing()[share],
                    extract=extract,
                    batch_size=batch_size,
                    num_workers=num_workers,
                    show=trainer.is_global_zero,
                )
                return split

            split = self._agreed(trainer, filled)
            if split is not None:
                split.refresh()
        if split is not None:
            split.move_to(trainer.strategy.root_device)
            self.splits[name] = split

    def _open(
        self, dataset: InspectionDataset, about: Mapping[str, Any], shape: Sequence[int], *, makes_room: bool
    ) -> CachedSplit:
        """The split with its store. Raises StoreError where that cannot be had."""
        if self.mode == "memory":
            return CachedSplit(dataset=dataset, store=MemoryStore(shape=shape))
        store = DiskStore(cache=self.folder, about=about, shape=shape)
        split = CachedSplit(dataset=dataset, store=store)
        if makes_room:  # one process of a machine
            make_room(store, len(split.missing()), self.most)
        return split

    def _agreed(self, trainer: L.Trainer, action: Callable[[], CachedSplit]) -> CachedSplit | None:
        """What `action` makes, after every rank has; None, with a warning, where one cannot and the mode is `auto`.

        One rank without a cache is all without: the others would wait for it.
        """
        made, reason = None, None
        try:
            made = action()
        except StoreError as error:
            reason = error
        if trainer.strategy.reduce_boolean_decision(reason is None):
            return made
        said = reason or f"data.cache_dir={self.folder}: another process cannot keep them"
        if self.mode != "auto":
            raise InputError(f"{said}; choose another folder, or data.cache=off") from reason
        if trainer.is_global_zero:
            complain(f"warning: features are computed anew each time; {said}")
        return None


class ResumableLoader(DataLoader):
    """Tells Lightning that it resumes in the middle of an epoch; where, its `TrainBatches` ask the trainer."""

    def state_dict(self) -> dict:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class CachedLoader:
    """An iterable for Lightning: the batches that `batches` says, each read while the one before is used."""

    def __init__(self, *, split: CachedSplit, batches: Batches, masks: bool):
        self.split = split
        self.batches = batches
        self.masks = masks

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
        if torch.cuda.is_available() and batch["feature"].device.type == "cpu":
            batch["feature"] = batch["feature"].pin_memory()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep; Lightning asks when it saves in the middle of an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore: where to go on, `batches` ask the trainer."""
