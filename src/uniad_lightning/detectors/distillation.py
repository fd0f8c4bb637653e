"""A network that learns from the images of a folder before the training, and is kept for the next one."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, islice
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from torch.utils.data import DataLoader

from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.encoding import signatures
from uniad_lightning.data.feature_cache.filling import FeatureCache
from uniad_lightning.data.feature_cache.store_folder import digest
from uniad_lightning.data.images.decoding import DECODING
from uniad_lightning.detectors.optimization import optimize
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.files.kept import kept
from uniad_lightning.files.user_path import expand
from uniad_lightning.progress_bar import progress_bar
from uniad_lightning.randomness import key, permutation, seed_step

FOLDER = "teachers"  # in the folder of the feature cache


def _constant(optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
    return ConstantLR(optimizer, factor=1.0, total_iters=total_steps)


class Distillation:
    """Trains the networks in `learning` by the sum of the parts of `loss` for `steps` of `batch_size` images.

    It begins from new weights that follow from `seed`, as do the order of the images and all that `loss` draws, at one
    learning rate; the same for any number of processes, each of which has all images.
    """

    def __init__(
        self,
        learning: nn.Module,
        *,
        loss: Callable[[Tensor], Mapping[str, Tensor]],
        optimizer: Callable[..., Optimizer],
        steps: int,
        batch_size: int,
        num_workers: int,
        seed: int,
    ):
        self.learning, self.loss, self.steps = learning, loss, steps
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.optimizer = optimize(learning.parameters(), optimizer=optimizer, schedule=_constant, total_steps=steps)[
            "optimizer"
        ]

    def fit(
        self, dataset: InspectionDataset, *, about: Mapping[str, Any], cache: FeatureCache, trainer: L.Trainer
    ) -> None:
        """Learn from the images of `dataset`, or take what an earlier training learned with the same settings.

        `about` are plain values that `loss` depends on. With data.cache=off nothing is kept.

        Raises InputError for a damaged file of the cache, and where the loss is no longer finite.
        """
        device, shown = trainer.strategy.root_device, trainer.is_global_zero
        self.learning.to(device)
        if cache.mode == "off":
            self._learn(dataset, device, shown=shown)
            return

        def make() -> dict[str, Tensor]:
            self._learn(dataset, device, shown=shown)
            return {name: value.cpu().clone() for name, value in self.learning.state_dict().items()}

        tensors, path = kept(expand(cache.folder) / FOLDER, {**about, **self._about(dataset)}, make)
        self.learning.load_state_dict(tensors)
        if path is not None and shown:
            print_stdout(f"teacher: the one in {path}, which learned from the same images with the same settings")

    def _about(self, dataset: InspectionDataset) -> dict[str, Any]:
        """What the weights depend on besides the loss; a change of an image's file is one of the images."""
        images = digest({"signatures": [signature.hex() for signature in signatures(dataset.records)]})
        size = {"image_size": list(dataset.image_size), "mean": dataset.mean.tolist(), "std": dataset.std.tolist()}
        pixels: dict[str, Any] = {"images": images, "decoding": DECODING, "white_level": dataset.white_level, **size}
        if dataset.channels is not None:
            pixels["channels"] = list(dataset.channels)
        settings = {"optimizer": type(self.optimizer).__name__, "arguments": repr(self.optimizer.defaults)}
        return {"steps": self.steps, "batch_size": self.batch_size, "seed": self.seed, **pixels, **settings}

    def _learn(self, dataset: InspectionDataset, device: torch.device, *, shown: bool) -> None:
        self._start()
        batches = DataLoader(
            dataset, batch_sampler=list(self._order(len(dataset))), collate_fn=dataset.collate,
            num_workers=dataset.workers(self.num_workers, self.batch_size),
        )  # fmt: skip
        bar = progress_bar("teacher", batches, total=self.steps, unit="step", shown=shown)
        for step, batch in enumerate(bar):
            seed_step(seed=key("teacher", self.seed), epoch=0, step=step, rank=0)
            value = sum(self.loss(batch["image"].to(device)).values(), torch.zeros((), device=device))
            if step % 10 == 0 and not value.isfinite():
                raise InputError(f"the teacher's loss is {value.item()} at step {step}; lower optimizer.lr")
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            if step % 10 == 0:
                bar.set_postfix_str(f"loss {value.item():.4f}", refresh=False)
        self.optimizer.zero_grad()

    def _start(self) -> None:
        """New weights: those that the networks were built with may have been replaced by a checkpoint's."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key("teacher", self.seed))
            for module in self.learning.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.reset_parameters()

    def _order(self, images: int) -> Iterator[list[int]]:
        """The images of each step: all in a new order, and again."""
        orders = (permutation(images, seed=key("teacher", self.seed), epoch=epoch).tolist() for epoch in count())
        stream = chain.from_iterable(orders)
        return (list(islice(stream, self.batch_size)) for _ in range(self.steps))
