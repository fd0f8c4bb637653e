"""Records -> samples: decode, resize, augment, normalise."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from uniad_lightning.data.defects.base import SyntheticDefects, damaged
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.tiling import WHOLE, Framing
from uniad_lightning.data.records import Record
from uniad_lightning.data.sampling import Draw
from uniad_lightning.data.shared_memory import workers_with_room
from uniad_lightning.types import Batch, Size

Sample = dict[str, Tensor | int | bool]


class InspectionDataset(Dataset):
    """One split as samples: the fields of `Batch` without the leading B.

    Images come at `image_size` (height, width), as (value / 255 - mean) / std; an image that `framing` cuts into
    several tiles as (T, 3, H, W). `white_level` is white in images of more than 8 bits, and `channels` are those of a
    file that are red, green and blue. `categories` gives each category its number. A defective record without mask has
    `has_mask` False; the mask of a good one is empty.
    Only items indexed by a `Draw` are augmented and, after that, get `defects`; evaluation uses plain indices.
    """

    def __init__(
        self,
        *,
        records: Sequence[Record],
        categories: Sequence[str],
        image_size: Size,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
        framing: Framing = WHOLE,
        white_level: int = FULL_RANGE,
        channels: Channels | None = None,
        defects: SyntheticDefects | None = None,
    ):
        self.records = records
        self.numbers = {name: number for number, name in enumerate(categories)}
        self.image_size = image_size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)
        self.augmentation = augmentation
        self.framing = framing
        self.white_level = white_level
        self.channels = channels
        self.defects = defects

    @property
    def map_size(self) -> Size:
        """(height, width) of a mask."""
        return self.framing.map_size(self.image_size)

    def workers(self, asked: int, batch_size: int) -> int:
        """`asked` processes to load batches, or fewer where those have no room in shared memory."""
        height, width = self.image_size
        image = height * width * self.framing.count * (3 * 4 + 1)  # float32 of three channels, and a mask
        versions = 1 if self.defects is None else 3  # as they are, and damaged
        return workers_with_room(asked, batch_size * image * versions)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, item: int | Draw) -> Sample:
        """One sample; InputError when its image or mask cannot be read or they differ in size."""
        index = item.place if isinstance(item, Draw) else item
        record = self.records[index]
        tiles, mask = self.framing.read(record, self.image_size, white_level=self.white_level, channels=self.channels)
        if isinstance(item, Draw):
            tiles = [self.augmentation(tile, item.number) for tile in tiles]
        image = normalise(tiles, self.mean, self.std)  # (T, 3, H, W)
        sample: Sample = {
            "image": image[0] if len(tiles) == 1 else image,
            "mask": torch.from_numpy(mask),
            "has_mask": bool(record.masks) or record.label == 0,
            "label": record.label,
            "category": self.numbers[record.category],
            "index": index,
        }
        if isinstance(item, Draw) and self.defects is not None:  # a training image is one tile
            sample |= self._damaged(self.defects, tiles[0], item.number)
        return sample

    def _damaged(self, defects: SyntheticDefects, image: np.ndarray, number: int) -> Sample:
        versions = damaged(defects, image, seed=self.augmentation.seed, number=number)
        images, masks = zip(*versions, strict=True)
        return {"damaged": normalise(images, self.mean, self.std), "damage": torch.from_numpy(np.stack(masks))}

    def collate(self, samples: list[dict]) -> Batch:
        """A batch of samples; without any, the empty batch of a rank without images."""
        if samples:
            return default_collate(samples)
        none = torch.zeros(0, dtype=torch.int64)
        return {
            "image": torch.zeros(0, 3, *self.image_size),
            "mask": torch.zeros(0, *self.map_size, dtype=torch.bool),
            "has_mask": none.bool(),
            "label": none,
            "category": none,
            "index": none,
        }


def normalise(images: Sequence[np.ndarray], mean: Tensor, std: Tensor) -> Tensor:
    """Images (H, W, 3) uint8 of one size as (n, 3, H, W) float32, (value / 255 - mean) / std; those are (3, 1, 1)."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)
    return pixels.sub_(mean).div_(std)
