"""One split of a data set with its features in a store: batches of features, without decoding an image."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.encoding import pack_mask, signatures, unpack_mask
from uniad_lightning.data.feature_cache.store import MISSING, Store
from uniad_lightning.progress_bar import progress_bar
from uniad_lightning.types import Batch

RESIDENT_SHARE = 0.5  # of a GPU's free memory that features may take


class CachedSplit:
    """The images of one split, their features in a store; `fill` computes missing ones."""

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
        """Positions of the images whose features the store does not have."""
        return np.flatnonzero(self.slots == MISSING).tolist()

    def fill(
        self,
        images: Sequence[int],
        *,
        extract: Callable[[Tensor], Tensor],
        show: bool,
        **loading: Any,
    ) -> None:
        """Compute and keep the features of `images`, batch by batch; an interruption loses the current batch alone.

        `loading` are arguments of the `DataLoader`.
        """
        if not images:
            return
        loader: Iterable[Batch] = DataLoader(Subset(self.dataset, images), collate_fn=self.dataset.collate, **loading)
        with progress_bar("features", total=len(images), shown=show) as bar:
            for batch in loader:
                chosen = batch["index"].tolist()
                masks = [pack_mask(mask) for mask in batch["mask"].numpy()]
                self.store.add([self.signatures[i] for i in chosen], extract(batch["image"]), masks)
                bar.update(len(chosen))

    def refresh(self) -> None:
        """Ask the store again which features it has."""
        self.slots = self.store.find(self.signatures)

    def move_to(self, device: torch.device) -> None:
        """Keep all features on a GPU, where they fit into `RESIDENT_SHARE` of its free memory."""
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
