"""Records -> samples: decode, resize, normalise."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from uniad_lightning.data.image import read_image, read_mask, resize, resize_mask
from uniad_lightning.data.records import Record
from uniad_lightning.types import Batch, Size


class InspectionDataset(Dataset):
    """One split as samples: the fields of `Batch` without the leading B.

    Images come at `image_size` (height, width), as (value / 255 - mean) / std. `categories` gives each category its
    number. A defective record without mask has `has_mask` False; good ones always know theirs, which is empty.
    """

    def __init__(
        self,
        *,
        records: Sequence[Record],
        categories: Sequence[str],
        image_size: Size,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.records = records
        self.numbers = {name: number for number, name in enumerate(categories)}
        self.image_size = image_size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor | int | bool]:
        """The sample at `index`; InputError when its image or mask cannot be read or they differ in size."""
        record = self.records[index]
        image = read_image(record.image)
        mask = np.zeros(self.image_size, dtype=bool)
        if record.mask is not None:
            full = read_mask(record.mask, image_path=record.image, image_size=image.shape[:2])
            mask = resize_mask(full, self.image_size)
        pixels = torch.from_numpy(resize(image, self.image_size)).permute(2, 0, 1).float().div(255)  # (3, H, W)
        return {
            "image": pixels.sub_(self.mean).div_(self.std),
            "mask": torch.from_numpy(np.array(mask)),
            "has_mask": record.mask is not None or record.label == 0,
            "label": record.label,
            "category": self.numbers[record.category],
            "index": index,
        }

    def collate(self, samples: list[dict]) -> Batch:
        """A batch of samples; of none, the empty batch that a rank without images evaluates."""
        if samples:
            return default_collate(samples)
        none = torch.zeros(0, dtype=torch.int64)
        return {
            "image": torch.zeros(0, 3, *self.image_size),
            "mask": torch.zeros(0, *self.image_size, dtype=torch.bool),
            "has_mask": none.bool(),
            "label": none,
            "category": none,
            "index": none,
        }
