"""The picture of what a training learns from: train images and their synthetic defects."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.dataset import InspectionDataset, Sample
from uniad_lightning.data.sampling import Draw
from uniad_lightning.errors import system_reason
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.results.run_folder import DEFECTS
from uniad_lightning.results.sheets import draw_sheet
from uniad_lightning.results.written_files import note
from uniad_lightning.training.build import warn

_MOST = 6  # rows
_TURNS = 10  # tried of an image; methods leave about half of them good


@rank_zero_only
def draw_defects(data: UnifiedDataModule, folder: Path) -> None:
    """Draw some train images of `data` as a training gets them as `defects.png`; nothing without synthetic defects.

    Only the first process draws. Raises InputError for an image that cannot be read, or where the defects lack what
    they are made of.
    """
    if data.defects is None:
        return
    train = data.splits.train
    places = np.linspace(0, len(train) - 1, min(_MOST, len(train))).round().astype(int).tolist()
    dataset = data.dataset(train)
    batch = dataset.collate([_damaged(dataset, place) for place in places])
    columns = {"train image": [_pixels(image, dataset.mean, dataset.std) for image in batch["image"]]}
    for view in range(data.defects.views):
        name = f"defect {view + 1}" if data.defects.views > 1 else "defect"
        columns[name] = [_pixels(image, dataset.mean, dataset.std) for image in batch["damaged"][:, view]]
        columns[f"mask of {name}"] = [_white(mask) for mask in batch["damage"][:, view]]
    labels = [f"{train[place].category}/{train[place].image.name}" for place in places]
    drawn = BytesIO()
    draw_sheet(columns, labels, heading="synthetic defects").save(drawn, format="PNG")
    try:
        note(folder / DEFECTS)
        write_whole(folder / DEFECTS, drawn.getvalue())
    except OSError as error:  # the training is worth more
        warn(f"{folder / DEFECTS}: cannot be written; {system_reason(error)}")


def _damaged(dataset: InspectionDataset, place: int) -> Sample:
    """The image at `place` as a training has it at some turn, with a defect if any of a few turns has one.

    A draw depends on the number of the sample alone, so that each place needs numbers of its own.
    """
    for number in range(place * _TURNS, (place + 1) * _TURNS):
        sample = dataset[Draw(place, number)]
        if torch.as_tensor(sample["damage"]).any():
            break
    return sample


def _pixels(image: Tensor, mean: Tensor, std: Tensor) -> np.ndarray:
    """A normalised image (3, H, W) as it was, (H, W, 3) uint8."""
    return image.mul(std).add(mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _white(mask: Tensor) -> np.ndarray:
    """A mask (H, W) as white on black, (H, W, 3) uint8."""
    return mask.byte().mul(255).unsqueeze(2).expand(-1, -1, 3).numpy()
