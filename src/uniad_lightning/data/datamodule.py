"""`UnifiedDataModule`: the good images of all categories to train on, everything else to test on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Sampler

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError
from uniad_lightning.randomness import permutation
from uniad_lightning.types import pair


class TrainBatches(Sampler[list[int]]):
    """This rank's slice of each global batch: step k of an epoch takes `permutation[k*B:(k+1)*B]`, for any world size.

    `position` tells the number of optimizer steps done, from which epoch and step follow; so a resumed run goes on
    with the batch it would have seen. The incomplete tail of an epoch is dropped.
    """

    def __init__(
        self, *, count: int, batch_size: int, seed: int, rank: int, world_size: int, position: Callable[[], int]
    ):
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.share = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self.position = position

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = divmod(self.position(), len(self))
        order = permutation(self.count, seed=self.seed, epoch=epoch)
        for step in range(start, len(self)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size][self.share].tolist()


class EvaluationBatches(Sampler[list[int]]):
    """Items rank, rank + world, ...: each once, no padding. A rank without items gets one empty batch.

    Lightning skips the epoch-end hooks of a rank without batches, and the others would wait for it in their collective.
    """

    def __init__(self, *, count: int, batch_size: int, rank: int, world_size: int):
        self.items = list(range(rank, count, world_size))
        self.batch_size = batch_size

    def __len__(self) -> int:
        return max(1, -(-len(self.items) // self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(len(self)):
            yield self.items[i * self.batch_size : (i + 1) * self.batch_size]


class ResumableLoader(DataLoader):
    """Tells Lightning that it resumes in the middle of an epoch; where, its `TrainBatches` ask the trainer."""

    def state_dict(self) -> dict:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class UnifiedDataModule(L.LightningDataModule):
    """Several categories under `root` as one training set and one test set.

    `source(root, categories=...)` lists the records; `prepare(root)`, where given, writes them first, on one process.
    `batch_size` is the global one, divided over the processes; `eval_batch_size` is each process's own. `mean` and
    `std` are what the backbone's input expects.

    Raises InputError, at the latest in `setup`, for what `source` refuses and for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        source: Callable[..., Splits],
        root: str,
        categories: Sequence[str] | None,
        image_size: int | Sequence[int],
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        prepare: Callable[[Path], object] | None = None,
    ):
        super().__init__()
        self.source = source
        self.root = Path(root).expanduser()
        self.chosen = categories
        self.image_size = pair(image_size, "data.image_size")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.mean = mean
        self.std = std
        self.prepare = prepare
        self.splits: Splits | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        assert self.splits is not None  # set up by now
        return len(self.splits.train) // self.batch_size

    def prepare_data(self) -> None:
        """Write the data set where it is the package's own to write."""
        if self.prepare is not None:
            self.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """List the records and check the sizes, once."""
        if self.splits is not None:
            return
        splits = self.source(self.root, categories=None if self.chosen is None else list(self.chosen))
        if not splits.test:
            raise InputError(f"data.root={self.root}: no test image in {', '.join(splits.categories)}; expected some")
        if stage == "fit":
            self._check_batch_size(len(splits.train))
        self.splits = splits

    def _check_batch_size(self, count: int) -> None:
        world_size = self.trainer.world_size if self.trainer else 1
        if self.batch_size < 1 or self.batch_size % world_size:
            raise InputError(
                f"data.batch_size={self.batch_size} cannot be divided by the {world_size} processes of the trainer; "
                f"choose a multiple of {world_size}"
            )
        if count < self.batch_size:
            raise InputError(
                f"data.batch_size={self.batch_size} exceeds the {count} train images below {self.root}; lower it"
            )

    def train_dataloader(self) -> DataLoader:
        """This rank's training batches."""
        assert self.splits is not None
        assert self.trainer is not None
        trainer = self.trainer
        batches = TrainBatches(
            count=len(self.splits.train),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            position=lambda: trainer.global_step,
        )
        return self._loader(ResumableLoader, self.splits.train, batches)

    def test_dataloader(self) -> DataLoader:
        """This rank's share of the test split."""
        assert self.splits is not None
        assert self.trainer is not None
        batches = EvaluationBatches(
            count=len(self.splits.test),
            batch_size=self.eval_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return self._loader(DataLoader, self.splits.test, batches)

    def val_dataloader(self) -> DataLoader:
        """The test split: there is no other set with anomalies, and only `validate_every` looks at it."""
        return self.test_dataloader()

    def _loader(self, kind: type[DataLoader], records: Sequence[Record], batches: Sampler[list[int]]) -> DataLoader:
        assert self.splits is not None
        dataset = InspectionDataset(
            records=records,
            categories=self.splits.categories,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
        )
        return kind(
            dataset,
            batch_sampler=batches,
            collate_fn=dataset.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
