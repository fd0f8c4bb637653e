"""Which features of a data module are cached, and train features without another pass over the images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.decoding import DECODING
from uniad_lightning.data.images.tiling import WHOLE
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.types import Batch


def cache_features(
    data: UnifiedDataModule,
    stage: str,
    *,
    extract: Callable[[Tensor], Tensor],
    about: Mapping[str, Any],
    shape: Sequence[int],
) -> None:
    """Have the features of the images that `stage`, `fit` or `test`, reads more than once in the cache.

    `extract` makes features (B, *`shape`) = (B, C, h, w) of images on the CPU, and `about` are plain values that
    say how. Every rank calls this and takes its share of what is missing.

    Raises InputError where the cache was asked for and cannot be had, with the reason.
    """
    image = {"image_size": data.image_size, "mean": data.mean, "std": data.std, "decoding": DECODING}
    image["white_level"] = as_number(data.white_level)
    if data.channels is not None:
        image["channels"] = list(data.channels)
    if data.framing.plain() != WHOLE.plain():
        image["framing"] = data.framing.plain()
    for name in _to_cache(data, stage):
        data.cache.fill(
            name,
            data.dataset(getattr(data.splits, name)),
            about={**about, **image},
            shape=shape,
            extract=extract,
            batch_size=data.eval_batch_size,
            num_workers=data.num_workers,
            trainer=data.running_trainer,
        )


def _to_cache(data: UnifiedDataModule, stage: str) -> list[str]:
    """The splits to cache for `stage`, with `auto` those that are read more than once."""
    trainer = data.running_trainer
    if data.cache.mode == "off":
        return []
    for setting, changes in (("augmentation", data.augmentation.is_random), ("defects", data.defects is not None)):
        if changes:
            data.cache.refuse(f"data.{setting} makes other images of the same each time")
            return []
    if data.cache.mode == "memory" and trainer.world_size > 1:
        data.cache.refuse(f"each of the {trainer.world_size} processes would compute and hold all features")
    auto = data.cache.mode == "auto"
    train = stage == "fit" and not (auto and data.steps.total in range(1, data.steps.per_epoch + 1))
    test = bool(trainer.limit_val_batches) if stage == "fit" else not auto
    test &= data.framing.count == 1  # a slot holds the features of one tile
    return [name for name, wanted in (("train", train), ("test", test)) if wanted and name not in data.cache.splits]


def statistics_batches(data: UnifiedDataModule, device: torch.device, count: int = 512) -> Iterator[Batch]:
    """Up to `count` train images spread over all categories, as batches on `device`, the same on every rank."""
    chosen = range(0, len(data.splits.train), -(-len(data.splits.train) // count))
    dataset = data.dataset(data.splits.train)
    for start in range(0, len(chosen), data.eval_batch_size):
        part = chosen[start : start + data.eval_batch_size]
        if "train" in data.cache.splits:
            yield {"feature": data.cache.splits["train"].features(part).to(device)}
        else:
            yield {"image": dataset.collate([dataset[i] for i in part])["image"].to(device)}
