"""PatchCore's kind of detector (Roth et al. 2022): how far each patch is from the nearest good one in a bank.

One bank for all categories, where the paper has one each. Features may be standardised, which the paper does not do.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from uniad_lightning.detectors.one_pass import OnePass, gathered
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.coreset import check_share, coreset
from uniad_lightning.models.initialization import check_flags
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.memory_bank import MemoryBank
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, pair


class MemoryBankDetector(OnePass):
    """Keeps features of good train images; the anomaly map is the distance to the nearest of them.

    The paper averages features over 3x3 cells (`backbone.window`). Of the patches a `coreset` share is kept (Algorithm
    1: greedy k-center, after a random projection to `coreset_dim` channels), all where it is null. With `reweight` an
    image's score is weighted by `neighbors` patches around the nearest (Eq. 7). `half` keeps the bank in float16, and
    `megabytes` bounds the memory of a search.

    A training that starts from a bank (`init_from`) adds the categories it does not know and leaves the others as they
    are.
    """

    forgets = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        score: ImageScore,
        standardize: bool,
        seed: int,
        grid: int | list[int],
        coreset: float | None,
        coreset_dim: int | None,
        reweight: bool,
        neighbors: int,
        half: bool,
        megabytes: float,
    ):
        super().__init__(backbone=backbone, score=score, standardize=standardize, seed=seed)
        self.grid = pair(grid, "model.grid")
        if coreset is not None:
            check_share(coreset, coreset_dim)
        check_flags({"reweight": reweight})
        self.share = coreset
        self.coreset_dim = coreset_dim
        self.reweight = reweight
        self.bank = MemoryBank(channels=sum(backbone.channels), neighbors=neighbors, half=half, megabytes=megabytes)
        self.categories: list[str] = []  # whose patches the bank holds; `bank.owner` counts in it
        self._collected: list[tuple[Tensor, Tensor, Tensor]] = []  # features, index and category of images

    def patches(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) as the bank holds them: standardised, as tokens (B, N, C)."""
        return self.standardize(features.flatten(2).transpose(1, 2))

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Distance of each patch to the bank, (B, h, w), at least 0."""
        return self.bank(self.patches(self.features(batch))).unflatten(1, self.grid)

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The score of the upsampled maps (B, H, W), weighted by Eq. 7 where `reweight` asks for it; (B,)."""
        scores = self.score(maps)
        if not self.reweight:
            return scores
        tokens = self.patches(self.features(batch))
        tokens = tokens.unflatten(0, (maps.shape[0], -1))  # `len` would fix the number of images in an exported file
        tokens = tokens.flatten(1, 2)  # the tiles of an image together
        distances = self.bank(tokens)
        return scores * self.bank.reweighted(tokens, distances) / distances.amax(dim=1).clamp_min(1e-12)

    def on_train_start(self) -> None:
        """Refuse a training that brings no new category."""
        if self.categories and not {record.category for record in self.data.splits.train} - {*self.categories}:
            known = ", ".join(self.categories)
            raise InputError(f"data: the bank of init_from has all of its categories ({known}); name new ones")

    def known_categories(self, trained: Iterable[str]) -> list[str]:
        """Those of the bank, whatever was trained on."""
        return sorted(self.categories)

    def collect(self, batch: Batch) -> None:
        """Keep the features of the categories that the bank does not know yet."""
        if not len(batch["index"]):
            return
        names = self.data.splits.categories
        new = torch.tensor([names[i] not in self.categories for i in batch["category"].tolist()], device=self.device)
        kept = (self.features(batch)[new].half().cpu(), batch["index"][new].cpu(), batch["category"][new].cpu())
        self._collected.append(kept)

    def finish(self) -> None:
        """Put what all processes have collected into the bank, in the order of the train images."""
        none = torch.zeros(0, dtype=torch.int64)
        nothing = torch.zeros(0, sum(self.backbone.channels), *self.grid, dtype=torch.float16), none, none
        features, index, category = (torch.cat(parts) for parts in zip(nothing, *self._collected, strict=True))
        self._collected.clear()
        index, processes = index.to(self.device), self.trainer.world_size
        features, category = (gathered(part.to(self.device), index, processes) for part in (features, category))
        if isinstance(self.standardize, Standardize) and not self.standardize.fitted:
            self.standardize.fit(part.float().flatten(2).transpose(1, 2) for part in features.split(64))
        patches = torch.cat([self.patches(part.float()).flatten(0, 1) for part in features.split(64)])  # (M, C)
        owner = self._owners(category).repeat_interleave(self.grid[0] * self.grid[1])
        chosen = self._chosen(patches)
        self.bank.append(patches[chosen], owner[chosen])

    def _owners(self, category: Tensor) -> Tensor:
        """The place of each image's category (n,) in `categories`, which new ones join."""
        names = [self.data.splits.categories[i] for i in category.tolist()]
        self.categories += sorted({*names} - {*self.categories})
        return torch.tensor([self.categories.index(name) for name in names], device=category.device)

    def _chosen(self, patches: Tensor) -> Tensor:
        """Which of the patches (M, C) are kept; one process chooses for all."""
        if self.share is None or self.share == 1:
            return torch.arange(len(patches), device=patches.device)
        count = max(1, round(self.share * len(patches)))
        chosen = torch.zeros(count, dtype=torch.int64, device=patches.device)
        if self.trainer.is_global_zero:
            chosen = coreset(patches, self.share, seed=self.seed, progress=True, dim=self.coreset_dim)
        return self.trainer.strategy.broadcast(chosen)

    def remove(self, category: str) -> None:
        """Take a category's patches out of the bank; the others stay as they are. InputError for an unknown one."""
        if category not in self.categories:
            known = ", ".join(self.categories)
            near = did_you_mean(category, self.categories)
            raise InputError(f"category={category}: the bank has none of that name.{near} It has: {known}")
        place = self.categories.index(category)
        self.bank.remove(place)
        self.bank.owner -= (self.bank.owner > place).long()
        self.categories.remove(category)

    def get_extra_state(self) -> dict[str, list[str]]:
        """The names that `bank.owner` counts in."""
        return {"categories": self.categories}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """The opposite of `get_extra_state`."""
        self.categories = list(state["categories"])
