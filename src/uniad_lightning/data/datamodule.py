"""`UnifiedDataModule`: the good images of all categories to train on, everything else to test on."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import InitVar, dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.defects.base import SyntheticDefects
from uniad_lightning.data.feature_cache.filling import FeatureCache
from uniad_lightning.data.feature_cache.loader import Batches, CachedLoader, ResumableLoader, feeds_gpu, usable_cores
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.images.channels import Channels, check_channels
from uniad_lightning.data.images.deep_images import CLIPPED, DARK, FULL_RANGE, TRANSPARENT
from uniad_lightning.data.images.tiling import WHOLE, Framing
from uniad_lightning.data.images.white_level import AUTO, as_number, check_white_level, find_white_level
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.layouts.skipped import counting
from uniad_lightning.data.listing import list_records
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.sampling import EachImage, EvaluationBatches, TrainBatches, fitting_batch, named_sampling
from uniad_lightning.data.selection import apart_from, cut_into_tiles, image_groups, select
from uniad_lightning.data.skipping import REFUSE, check_skipping, readable, skipped_message
from uniad_lightning.data.steps import TrainingSteps
from uniad_lightning.errors import InputError, print_stderr
from uniad_lightning.files.user_path import expand
from uniad_lightning.types import Batch, Size, pair


@dataclass(kw_only=True, eq=False)
class UnifiedDataModule(L.LightningDataModule):
    """Several categories under `root` as one training set and one test set; InputError for sizes that are none."""

    source: Callable[..., Splits]  # `source(root, categories=...)` lists the records
    root: Any  # the folder of the data
    categories: Sequence[str] | None  # those to take; None: all
    normal_classes: int | str | Sequence[int | str] | None  # makes whole categories anomalies
    limit: int | None  # images of each category at most; None: all
    sampling: str  # `all` (each image once an epoch, the paper) or `balanced` (categories equally often)
    augmentation: Augmentation  # changes train images alone
    image_size: Any  # [height, width] in pixels, or one number for both
    batch_size: int  # over all processes
    eval_batch_size: int  # of each process
    num_workers: int  # processes that load images; at most the usable cores
    seed: int  # of the order of the images
    mean: Sequence[float]  # what the detector's input is shifted by, for each channel
    std: Sequence[float]  # what it is divided by
    cache: Any  # where features are kept: auto, off, memory or disk
    cache_dir: InitVar[str]  # the folder of the feature cache
    cache_size: InitVar[float | None] = None  # GB that it may take; None: a tenth of the disk
    prepare: Callable[[Path], object] | None = None  # `prepare(root)` writes the data first
    held_out: float = 0.0  # share of the good images that are not trained on
    framing: Framing = WHOLE  # which parts of an image are inspected
    defects: SyntheticDefects | None = None  # what training images are damaged by, for a method that learns from it
    white_level: int | str = FULL_RANGE  # of deep images; `setup` replaces `auto` by what the train images have
    channels: Any = None  # of a file, which are red, green and blue; None: as the file says
    on_error: str = REFUSE  # what is done with train images that cannot be read: refuse or skip
    max_skipped: float = 0.01  # share of the train images that may be skipped

    def __post_init__(self, cache_dir: str, cache_size: float | None) -> None:
        super().__init__()
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("num_workers", 0), ("limit", 1)):
            value = getattr(self, name)
            if not (name == "limit" and value is None) and not (isinstance(value, int) and value >= least):
                raise InputError(f"data.{name}={value}: expected a whole number of at least {least}")
        self.num_workers = min(self.num_workers, usable_cores())  # more only take turns, of which torch warns
        self.cache = FeatureCache(mode=self.cache, folder=Path(cache_dir), size=cache_size)
        self.root: Path = expand(self.root)
        self.white_level = check_white_level(self.white_level)
        self.channels: Channels | None = check_channels(self.channels)
        check_skipping(self.on_error, self.max_skipped)
        self.sample = named_sampling(self.sampling)
        self.image_size: Size = pair(self.image_size, "data.image_size")
        self.mean, self.std = tuple(self.mean), tuple(self.std)
        self.one_pass = False  # whether the train images are taken in order, none dropped
        self.is_other = False  # than the data of the training
        self._rehearsed: tuple[frozenset[str], int | None] = (frozenset(), None)
        self._trained: frozenset[int] | None = None
        self._splits: Splits | None = None

    def rehearse(self, known: Collection[str], count: int | None) -> None:
        """Train on at most `count` images of each of the `known` categories, evenly spaced; None: on all.

        To be called before `setup`. Raises InputError for no count.
        """
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"rehearse={count}: expected a whole number of at least 1, or null for all images")
        self._rehearsed = (frozenset(map(composed, known)), count)

    def for_evaluation(self, *, trained: Collection[int] | None, other: bool) -> None:
        """Prepare, before `setup`, for an evaluation alone, which needs no train image.

        With `trained`, the numbers (`selection.image_groups`) of the images that were trained on, all labelled images
        are tested where the source divides them (`test_share`): of `other` data all, else all but those.
        """
        if "train_needed" in signature(self.source).parameters:
            self.source = partial(self.source, train_needed=False)
        self.is_other = other
        if other:
            self.source = partial(self.source, test_share=1.0)
        self._trained = None if trained is None else frozenset(trained)

    @property
    def splits(self) -> Splits:
        """The records, from `setup` on."""
        if self._splits is None:
            raise RuntimeError("UnifiedDataModule.setup() lists the records; call it first")
        return self._splits

    def train_on(self, records: Iterable[Record]) -> None:
        """Train on these of the train images alone; to be called after `setup`."""
        self._splits = self.splits._replace(train=tuple(records))

    @property
    def map_size(self) -> Size:
        """(height, width) at which anomaly maps are scored and compared with masks."""
        return self.framing.map_size(self.image_size)

    @property
    def steps(self) -> TrainingSteps:
        """How long the training is, and how far it has come."""
        count = len(self.splits.train) + (self.batch_size - 1 if self.one_pass else 0)
        return TrainingSteps(self.running_trainer, count // self.batch_size)

    def prepare_data(self) -> None:
        """Write the data set, where `prepare` is given."""
        if self.prepare is not None:
            self.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """List the records, once, and find the white level, on the first process alone; Lightning shares it."""
        if self._splits is None:
            for notice in (CLIPPED, DARK, TRANSPARENT):  # printed for an earlier run of this process
                notice.reset()
            with counting() as passed_over:
                splits = self._selected()
                if self._trained is not None and not self._trained.issuperset(image_groups(splits.train).tolist()):
                    self.source = partial(self.source, test_share=1.0)  # nothing trains on the others
                    splits = self._selected()
            _warn(str(passed_over))
            if self._trained is not None:
                splits, warning = apart_from(splits, self._trained, other=self.is_other)
                _warn(warning)
            self._splits = cut_into_tiles(splits, self.framing.count)
            if self.white_level == AUTO and getattr(rank_zero_only, "rank", 0) == 0:
                found = find_white_level(self._splits.train, threads=max(self.num_workers, 1), channels=self.channels)
                self.white_level = found or AUTO
        if stage is not None:  # Lightning's own call, when the processes are connected
            self.white_level = self.running_trainer.strategy.broadcast(self.white_level)

    def _selected(self) -> Splits:
        self.root = on_disk(self.root)
        splits = list_records(self.source, self.root, self.categories)
        kept = select(splits, self.normal_classes, held_out=self.held_out, limit=self.limit, rehearsed=self._rehearsed)
        kept, self.skipped = readable(kept, self.on_error, self.max_skipped, self.channels)
        _warn(skipped_message(self.skipped, kept))
        return kept

    def check_batch_size(self, world_size: int) -> None:
        """Lower a batch that is larger than the train images, with a warning.

        Raises InputError when the batch cannot be divided over the processes, or an epoch has no step.
        """
        count = len(self.splits.train)
        fitting = fitting_batch(self.batch_size, images=None if self.one_pass else count, processes=world_size)
        if fitting < self.batch_size:
            _warn(f"data.batch_size={self.batch_size} exceeds the {count} train images; batches have {fitting}")
            self.batch_size = fitting
        if not self.steps.per_epoch:
            raise InputError(
                f"trainer.limit_train_batches={self.running_trainer.limit_train_batches}: leaves none of the "
                f"{count // self.batch_size} batches of an epoch; raise it"
            )

    def train_dataloader(self) -> DataLoader | CachedLoader:
        """This process's training batches."""
        trainer, count = self.running_trainer, len(self.splits.train)
        shares = {"batch_size": self.batch_size, "rank": trainer.global_rank, "world_size": trainer.world_size}
        batches: EachImage | TrainBatches = EachImage(count=count, **shares)
        if not self.one_pass:
            order = self.sample(categories=[record.category for record in self.splits.train], seed=self.seed)
            batches = TrainBatches(
                order=order, count=count, position=lambda: self.steps.done, steps=self.steps.per_epoch, **shares
            )
        return self._loader("train", batches, cached="train" in self.cache.splits)

    def test_dataloader(self) -> DataLoader | CachedLoader:
        """This process's share of the test split; features of half precision only where a cache was asked for."""
        return self._evaluation_loader(cached=self.tests_on_cache)

    @property
    def tests_on_cache(self) -> bool:
        """Whether the test split is tested on features of the cache, which are float16."""
        return self.cache.mode != "auto" and "test" in self.cache.splits

    def _evaluation_loader(self, *, cached: bool) -> DataLoader | CachedLoader:
        trainer, count = self.running_trainer, len(self.splits.test)
        shares = {"batch_size": self.eval_batch_size, "rank": trainer.global_rank, "world_size": trainer.world_size}
        batches = EvaluationBatches(count=count, **shares)
        return self._loader("test", batches, cached=cached)

    def val_dataloader(self) -> DataLoader | CachedLoader:
        """The test split: there is no other set with anomalies, and it is used where `validate_every` is given."""
        return self._evaluation_loader(cached="test" in self.cache.splits)

    @property
    def running_trainer(self) -> L.Trainer:
        """The trainer this data module was handed to."""
        if self.trainer is None:
            raise RuntimeError("UnifiedDataModule makes loaders for a trainer; hand it to one with datamodule=")
        return self.trainer

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on `device`, but for its masks, which are counted on the host."""
        mask: Batch = {"mask": batch.pop("mask")} if "mask" in batch else {}
        return {**super().transfer_batch_to_device(batch, device, dataloader_idx), **mask}

    def dataset(self, records: Sequence[Record]) -> InspectionDataset:
        """The samples of some records of this data."""
        return InspectionDataset(
            records=records, categories=self.splits.categories, image_size=self.image_size, mean=self.mean,
            std=self.std, augmentation=self.augmentation, framing=self.framing,
            white_level=as_number(self.white_level), channels=self.channels, defects=self.defects,
        )  # fmt: skip

    def _loader(self, name: str, batches: Batches, *, cached: bool) -> DataLoader | CachedLoader:
        pins = feeds_gpu(self.running_trainer)
        if cached:
            return CachedLoader(split=self.cache.splits[name], batches=batches, masks=name == "test", pin_memory=pins)
        dataset = self.dataset(getattr(self.splits, name))
        workers = dataset.workers(self.num_workers, max(self.batch_size, self.eval_batch_size))
        kind = ResumableLoader if name == "train" else DataLoader
        return kind(
            dataset, batch_sampler=batches, collate_fn=dataset.collate, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=pins,
        )  # fmt: skip


@rank_zero_only
def _warn(line: str) -> None:
    if line:
        print_stderr(f"warning: {line}")
