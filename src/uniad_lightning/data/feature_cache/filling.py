"""Filling the feature cache of a data module: which store, who computes what, and what to do without room."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.cached_split import CachedSplit
from uniad_lightning.data.feature_cache.loader import feeds_gpu
from uniad_lightning.data.feature_cache.room import make_room
from uniad_lightning.data.feature_cache.store import DiskStore, MemoryStore, StoreError
from uniad_lightning.errors import InputError, did_you_mean, print_stderr


class FeatureCache:
    """The feature cache of one data module: its settings, and the `splits` whose features it has.

    `mode` is `auto`, `off`, `memory` or `disk`; with `auto` features that cannot be cached are computed each time they
    are needed. `size` is what all stores in `folder` may take together, in GB, None for a tenth of the disk.

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
        """Raises InputError with the `reason` where the cache was asked for; with `auto` the run goes without."""
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
        """Cache the features of a split; each rank of the `trainer` computes its share of the missing ones.

        Raises InputError when the folder cannot be written or has no room; with `auto` that is a warning.
        """
        split = self._agreed(trainer, lambda: self._open(dataset, about, shape, makes_room=trainer.local_rank == 0))
        show = trainer.is_global_zero
        loading: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": dataset.workers(num_workers, batch_size),
            "pin_memory": feeds_gpu(trainer),
        }
        fill = partial(_fill_share, extract=extract, show=show, **loading)
        # The second time is for a rank on a machine that does not share the others' files.
        for share in (slice(trainer.global_rank, None, trainer.world_size), slice(None)):
            for step in (partial(fill, share=share), _refreshed):
                if split is None:
                    return
                split = self._agreed(trainer, partial(step, split))
        if split is not None:
            split = self._agreed(trainer, partial(_complete, split, self.folder))
        if split is not None:
            split.move_to(trainer.strategy.root_device)
            self.splits[name] = split

    def _open(
        self, dataset: InspectionDataset, about: Mapping[str, Any], shape: Sequence[int], *, makes_room: bool
    ) -> CachedSplit:
        """The split with its store. Raises StoreError where the store cannot be opened or has no room."""
        if self.mode == "memory":
            return CachedSplit(dataset=dataset, store=MemoryStore(shape=shape))
        store = DiskStore(cache=self.folder, about=about, shape=shape)
        split = CachedSplit(dataset=dataset, store=store)
        if makes_room:  # one process of a machine
            make_room(store, len(split.missing()), self.most)
        return split

    def _agreed(self, trainer: L.Trainer, action: Callable[[], CachedSplit]) -> CachedSplit | None:
        """The result of `action` on this rank, after all ranks ran it.

        Where one rank fails, all go without a cache, since the others would wait for it: with `auto` None is returned
        after a warning, otherwise InputError is raised.
        """
        made, reason = None, None
        try:
            made = action()
        except StoreError as error:
            reason = error
        if trainer.strategy.reduce_boolean_decision(reason is None):
            return made
        message = reason or f"data.cache_dir={self.folder}: another process cannot keep the features"
        if self.mode != "auto":
            raise InputError(f"{message}; choose another folder, or data.cache=off") from reason
        if trainer.is_global_zero:
            print_stderr(f"warning: features are not cached; {message}")
        return None


def _fill_share(
    split: CachedSplit,
    *,
    share: slice,
    extract: Callable[[Tensor], Tensor],
    show: bool,
    **loading: Any,
) -> CachedSplit:
    """`split` after the `share` of its missing features was computed."""
    split.fill(split.missing()[share], extract=extract, show=show, **loading)
    return split


def _refreshed(split: CachedSplit) -> CachedSplit:
    """`split` with the slots that the store has now, filled by all ranks."""
    split.refresh()
    return split


def _complete(split: CachedSplit, folder: Path) -> CachedSplit:
    """`split`. Raises StoreError where features that were just written are not found again."""
    if missing := len(split.missing()):
        raise StoreError(f"data.cache_dir={folder}: features of {missing} images were damaged as they were written")
    return split
