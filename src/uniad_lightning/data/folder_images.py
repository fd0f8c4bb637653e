"""Images of a folder of its own beside the data: decoded, resized and normalised as the train images are."""

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.data.layouts.loose_images import loose_images
from uniad_lightning.data.records import GOOD, Record
from uniad_lightning.files.user_path import expand


def folder_dataset(data: UnifiedDataModule, folder: str, *, key: str) -> InspectionDataset:
    """All images of `folder` as samples, none augmented; `key` is the setting that names it.

    Raises InputError for a folder that does not exist or holds no image.
    """
    records = [Record(image, (), "", GOOD, 0) for image in loose_images(expand(folder), key)]
    return InspectionDataset(
        records=records,
        categories=[""],
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        augmentation=data.augmentation,
        white_level=as_number(data.white_level),
        channels=data.channels,
    )
