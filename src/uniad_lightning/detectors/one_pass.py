"""Methods that learn without gradients: one pass over all train images, then what was collected is put together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.types import Batch


class OnePass(BackboneFeatures):
    """A method that sees each train image once, in order and none dropped, and is fitted when the pass is over.

    A subclass gives `collect(batch)` and `finish()`. Several processes share the images; `finish` has to make the same
    of them as one process does (`gathered`, or sums).
    """

    one_pass = True

    def __init__(self, **parts: Any):
        super().__init__(**parts)
        self.automatic_optimization = False
        # DistributedDataParallel refuses a module in which nothing can learn.
        self.unused = nn.Parameter(torch.zeros(()))

    def parts(self) -> dict[str, nn.Module]:
        """The backbone; all else is fitted."""
        return {"backbone": self.backbone}

    def collect(self, batch: Batch) -> None:
        """Take what is needed of a batch of good train images; it may hold none."""
        raise NotImplementedError

    def finish(self) -> None:
        """Put together what all processes have collected; the state is the same on all of them afterwards."""
        raise NotImplementedError

    def on_train_start(self) -> None:
        """Nothing is fitted before the pass."""

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect; nothing learns by gradients."""
        with torch.no_grad():
            self.collect(batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Fit after the last batch, before the detector is evaluated and the checkpoint is written."""
        if self.trainer.is_last_batch:
            with torch.no_grad():
                self.finish()

    def configure_optimizers(self) -> None:
        """None."""


def gathered(rows: Tensor, index: Tensor, processes: int) -> Tensor:
    """The `rows` (n, ...) of all `processes` on each of them, in the order of their `index` (n,)."""
    if processes == 1:
        return rows[index.argsort()]
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(processes)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    parts = [rows.new_empty(longest, *rows.shape[1:]) for _ in counts]
    places = [index.new_empty(longest) for _ in counts]
    dist.all_gather(parts, torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])]))
    dist.all_gather(places, torch.cat([index, index.new_zeros(longest - len(index))]))
    rows = torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
    index = torch.cat([place[: int(count)] for place, count in zip(places, counts, strict=True)])
    return rows[index.argsort()]
