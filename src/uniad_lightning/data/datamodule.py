"""`UnifiedDataModule`: the good images of all categories to train on, everything else to test on."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.loader import CachedLoader, FeatureCache, ResumableLoader
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.images.decoding import DECODING
from uniad_lightning.data.images.deep_images import CLIPPED, DARK, FULL_RANGE, TRANSPARENT
from uniad_lightning.data.images.tiling import WHOLE, Framing
from uniad_lightning.data.images.white_level import AUTO, as_number, check_white_level, find_white_level
from uniad_lightning.data.layouts.catalogue import with_hint
from uniad_lightning.data.layouts.category_names import check_names, composed
from uniad_lightning.data.layouts.passed_over import counting
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.sampling import EachImage, EvaluationBatches, TrainBatches
from uniad_lightning.data.sampling import sampling as sampling_called
from uniad_lightning.data.selection import (
    apart_from,
    cut_into_tiles,
    hold_out,
    limit_images,
    lots,
    normal_against_rest,
    rehearse,
)
from uniad_lightning.errors import InputError, complain
from uniad_lightning.files.user_path import expand
from uniad_lightning.types import Batch, Size, pair


class UnifiedDataModule(L.LightningDataModule):
    """Several categories under `root` as one training set and one test set.

    `source(root, categories=...)` lists the records; `prepare(root)`, where given, writes them first, on one process.
    `normal_classes`, where given, makes whole categories anomalies (`selection.normal_against_rest`), and `limit` keeps
    at most that many images of each category (`selection.limit_images`). Of the good images the share `held_out` is not
    trained on (`selection.hold_out`). `framing` says which parts of a picture are looked at. `white_level` is white in
    images of more than 8 bits; in place of `auto`, `setup` puts what it finds in the train images, if any are such.
    `sampling` is `all` (each image once an epoch, the paper) or `balanced` (categories equally often); `augmentation`
    changes training images alone. `batch_size` is the global one, divided over the processes; `eval_batch_size` is each
    process's own. `mean` and `std` are what the backbone's input expects.

    Raises InputError for sizes that are none; `setup` for what `source` refuses; `check_batch_size` for its own matter.
    """

    def __init__(
        self,
        *,
        source: Callable[..., Splits],
        root: str,
        categories: Sequence[str] | None,
        normal_classes: int | str | Sequence[int | str] | None,
        limit: int | None,
        sampling: str,
        augmentation: Augmentation,
        image_size: int | Sequence[int],
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        cache: str,
        cache_dir: str,
        cache_size: float | None = None,
        prepare: Callable[[Path], object] | None = None,
        held_out: float = 0.0,
        framing: Framing = WHOLE,
        white_level: int | str = FULL_RANGE,
    ):
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("limit", 1 if limit is None else limit, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise InputError(f"data.{name}={value}: expected a whole number of at least {least}")
        self.cache = FeatureCache(mode=cache, folder=Path(cache_dir), size=cache_size)
        self.source = source
        self.root = expand(root)
        self.chosen = categories
        self.normal_classes = normal_classes
        self.limit = limit
        self.held_out = held_out
        self.framing = framing
        self.white_level = check_white_level(white_level)
        self.sampling = sampling_called(sampling)
        self.augmentation = augmentation
        self.image_size = pair(image_size, "data.image_size")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.prepare = prepare
        self._known: tuple[frozenset[str], int | None] = (frozenset(), None)
        self._trained: frozenset[int] | None = None
        self.one_pass = False  # whether the train images are taken in order, none dropped
        self.is_other = False  # than the data of the training
        self._splits: Splits | None = None

    def rehearse(self, known: Collection[str], count: int | None) -> None:
        """Train on at most `count` images of each of the `known` categories, evenly spaced; None: on all.

        To be called before `setup`. Raises InputError for no count.
        """
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"rehearse={count}: expected a whole number of at least 1, or null for all images")
        self._known = (frozenset(map(composed, known)), count)

    def for_evaluation(self, *, trained: Collection[int] | None, other: bool) -> None:
        """Say, before `setup`, that nobody trains: then there may be no train image.

        With `trained`, the numbers (`selection.lots`) of the images that were trained on, all that is labelled is
        tested where it is the source that divides it (`test_share`): of `other` data all, else all but those.
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

    @property
    def map_size(self) -> Size:
        """(height, width) at which anomaly maps are scored and compared with masks."""
        return self.framing.map_size(self.image_size)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch, as many as the trainer's limit_train_batches leaves where there is one."""
        whole = len(self._train_batches())
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        return min(whole, limit) if isinstance(limit, int) else int(whole * limit)  # as Lightning has it

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training under the trainer; 0 where nothing sets an end."""
        # Not the trainer's own estimate: asking for it starts the loader before a checkpoint's position is restored.
        trainer = self.running_trainer
        by_epochs = (trainer.max_epochs or 0) * -(-self.steps_per_epoch // trainer.accumulate_grad_batches)
        return min((steps for steps in (by_epochs, trainer.max_steps) if steps > 0), default=0)

    @property
    def total_batches(self) -> int:
        """Batches of the whole training under the trainer; 0 where nothing sets an end."""
        each = self.running_trainer.accumulate_grad_batches
        epochs, steps = divmod(self.total_steps, -(-self.steps_per_epoch // each))
        return epochs * self.steps_per_epoch + min(steps * each, self.steps_per_epoch)

    @property
    def batches_done(self) -> int:
        """Batches that the training has seen, by Lightning's own count, however many optimizers stepped at each."""
        return self.running_trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]

    def prepare_data(self) -> None:
        """Write the data set where it is the package's own to write."""
        if self.prepare is not None:
            self.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """List the records, once, and find the white level, on the first process alone; Lightning shares it."""
        if self._splits is None:
            for notice in (CLIPPED, DARK, TRANSPARENT):  # said of another run in this process, as of a sweep
                notice.reset()
            with counting() as passed_over:
                splits = self._selected()
                if self._trained is not None and not self._trained.issuperset(lots(splits.train).tolist()):
                    self.source = partial(self.source, test_share=1.0)  # for nobody trains on the others
                    splits = self._selected()
            _warn(str(passed_over))
            if self._trained is not None:
                splits, warning = apart_from(splits, self._trained, other=self.is_other)
                _warn(warning)
            self._splits = cut_into_tiles(splits, self.framing.count)
            if self.white_level == AUTO and getattr(rank_zero_only, "rank", 0) == 0:
                found = find_white_level(self._splits.train, threads=max(self.num_workers, 1))
                self.white_level = found or AUTO
        if stage is not None:  # Lightning's own call, when the processes are connected
            self.white_level = self.running_trainer.strategy.broadcast(self.white_level)

    def _selected(self) -> Splits:
        splits = self._list()
        check_names({name: f"data.root={self.root}" for name in splits.categories})
        if self.normal_classes is not None:
            splits = normal_against_rest(splits, self.normal_classes)
        splits = hold_out(splits, self.held_out)
        if self.limit is not None:
            splits = limit_images(splits, self.limit)
        return rehearse(splits, *self._known)

    def _list(self) -> Splits:
        # What is no list is left as it is, for the source to say that it wants one.
        chosen = (
            list(self.chosen) if isinstance(self.chosen, Sequence) and not isinstance(self.chosen, str) else self.chosen
        )
        self.root = on_disk(self.root)
        try:
            splits = self.source(self.root, categories=chosen)
            if not splits.test:
                names = ", ".join(splits.categories)
                raise InputError(f"data.root={self.root}: no test image in {names}; expected some in test/")
        except InputError as error:
            listing = getattr(self.source, "func", self.source)  # what a partial calls
            raise with_hint(error, root=self.root, listing=listing) from None
        return splits

    def cache_features(
        self, stage: str, *, extract: Callable[[Tensor], Tensor], about: Mapping[str, Any], shape: Sequence[int]
    ) -> None:
        """Have the features of the images that `stage`, `fit` or `test`, looks at more than once in the cache.

        `extract` makes features (B, *`shape`) = (B, C, h, w) of images on the CPU, and `about` are plain values that
        say how. Every rank calls this and takes its share of what is missing.

        Raises InputError where the cache was asked for and cannot be had, with the reason.
        """
        image = {"image_size": self.image_size, "mean": self.mean, "std": self.std, "decoding": DECODING}
        image["white_level"] = as_number(self.white_level)
        if self.framing.plain() != WHOLE.plain():
            image["framing"] = self.framing.plain()
        for name in self._looked_at_again(stage):
            self.cache.fill(
                name,
                self._dataset(getattr(self.splits, name)),
                about={**about, **image},
                shape=shape,
                extract=extract,
                batch_size=self.eval_batch_size,
                num_workers=self.num_workers,
                trainer=self.running_trainer,
            )

    def _looked_at_again(self, stage: str) -> list[str]:
        """The splits to cache for `stage`: with `auto` those that are looked at more than once."""
        trainer = self.running_trainer
        if self.cache.mode == "off":
            return []
        if self.augmentation.is_random:
            self.cache.refuse("data.augmentation makes other images of the same each time")
            return []
        if self.cache.mode == "memory" and trainer.world_size > 1:
            self.cache.refuse(f"each of the {trainer.world_size} processes would compute and hold all features")
        epochs = trainer.max_epochs == -1 or (trainer.max_epochs or 0) > 1
        steps = trainer.max_steps == -1 or trainer.max_steps > self.steps_per_epoch
        train = stage == "fit" and (self.cache.mode != "auto" or (epochs and steps))
        test = bool(trainer.limit_val_batches) if stage == "fit" else self.cache.mode != "auto"
        test &= self.framing.count == 1  # a slot holds the features of one tile
        return [name for name, wanted in (("train", train), ("test", test)) if wanted and name not in self.cache.splits]

    def check_batch_size(self, world_size: int) -> None:
        """Raises InputError when the batch cannot be divided over the processes, or an epoch has no step."""
        count = len(self.splits.train)
        if self.batch_size % world_size:
            raise InputError(
                f"data.batch_size={self.batch_size} cannot be divided by the {world_size} processes of the trainer; "
                f"choose a multiple of {world_size}"
            )
        if count < self.batch_size and not self.one_pass:
            raise InputError(
                f"data.batch_size={self.batch_size} exceeds the {count} train images below {self.root}; lower it"
            )
        if not self.steps_per_epoch:
            raise InputError(
                f"trainer.limit_train_batches={self.running_trainer.limit_train_batches}: leaves none of the "
                f"{count // self.batch_size} batches of an epoch; raise it"
            )

    def train_dataloader(self) -> DataLoader | CachedLoader:
        """This rank's training batches."""
        batches = self._train_batches(steps=self.steps_per_epoch)
        if "train" in self.cache.splits:
            return CachedLoader(split=self.cache.splits["train"], batches=batches, masks=False)
        return self._loader(ResumableLoader, self.splits.train, batches)

    def _train_batches(self, steps: int | None = None) -> TrainBatches | EachImage:
        trainer, count = self.trainer, len(self.splits.train)
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        if self.one_pass:
            return EachImage(count=count, batch_size=self.batch_size, rank=rank, world_size=world_size)
        return TrainBatches(
            order=self.sampling(categories=[r.category for r in self.splits.train], seed=self.seed),
            count=count,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            position=lambda: self.batches_done,
            steps=steps,
        )

    def test_dataloader(self) -> DataLoader | CachedLoader:
        """This rank's share of the test split; features of half precision only where a cache was asked for."""
        return self._evaluation_loader(cached=self.tests_on_cache)

    @property
    def tests_on_cache(self) -> bool:
        """Whether the test split is tested on features of the cache, which are float16."""
        return self.cache.mode != "auto" and "test" in self.cache.splits

    def _evaluation_loader(self, *, cached: bool) -> DataLoader | CachedLoader:
        trainer = self.running_trainer
        batches = EvaluationBatches(
            count=len(self.splits.test),
            batch_size=self.eval_batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if cached:
            return CachedLoader(split=self.cache.splits["test"], batches=batches, masks=True)
        return self._loader(DataLoader, self.splits.test, batches)

    def val_dataloader(self) -> DataLoader | CachedLoader:
        """The test split: there is no other set with anomalies, and only `validate_every` looks at it."""
        return self._evaluation_loader(cached="test" in self.cache.splits)

    @property
    def running_trainer(self) -> L.Trainer:
        """The trainer this data module was handed to."""
        if self.trainer is None:
            raise RuntimeError("UnifiedDataModule makes loaders for a trainer; hand it to one with datamodule=")
        return self.trainer

    def statistics_batches(self, device: torch.device, count: int = 512) -> Iterator[Batch]:
        """Up to `count` train images spread over all categories, as batches on `device`, the same on every rank."""
        chosen = range(0, len(self.splits.train), -(-len(self.splits.train) // count))
        dataset = self._dataset(self.splits.train)
        for start in range(0, len(chosen), self.eval_batch_size):
            part = chosen[start : start + self.eval_batch_size]
            if "train" in self.cache.splits:
                yield {"feature": self.cache.splits["train"].features(part).to(device)}
            else:
                yield {"image": dataset.collate([dataset[i] for i in part])["image"].to(device)}

    def _dataset(self, records: Sequence[Record]) -> InspectionDataset:
        return InspectionDataset(
            records=records,
            categories=self.splits.categories,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            augmentation=self.augmentation,
            framing=self.framing,
            white_level=as_number(self.white_level),
        )

    def _loader(self, kind: type[DataLoader], records: Sequence[Record], batches: Sampler[list]) -> DataLoader:
        dataset = self._dataset(records)
        return kind(
            dataset,
            batch_sampler=batches,
            collate_fn=dataset.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


@rank_zero_only
def _warn(line: str) -> None:
    if line:
        complain(f"warning: {line}")
