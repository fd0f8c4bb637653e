"""Scores of the images that boundaries are set on and tested on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uniad_lightning.data.checking import decode_all
from uniad_lightning.data.images.decoding import DATA_SET_PIXELS, read_image
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.result import refuse_not_finite
from uniad_lightning.progress_bar import progress_bar


class Scores(NamedTuple):
    """The results of an engine for n records.

    Attributes:
        records: the records.
        score: image scores (n,).
        peak: the anomaly maps' maxima (n,).
        descriptor: mean features (n, C); None for a detector that has none.
    """

    records: tuple[Record, ...]
    score: np.ndarray
    peak: np.ndarray
    descriptor: Tensor | None

    def of(self, category: str) -> "Scores":
        """Those of one category."""
        return self._at([i for i, record in enumerate(self.records) if record.category == category])

    def labelled(self, label: int) -> "Scores":
        """Those of good images (0) or of defective ones (1)."""
        return self._at([i for i, record in enumerate(self.records) if record.label == label])

    @classmethod
    def joined(cls, parts: "Sequence[Scores]") -> "Scores":
        """Those of several together, at least one."""
        known = [part.descriptor for part in parts if part.descriptor is not None]
        return cls(
            tuple(record for part in parts for record in part.records),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.peak for part in parts]),
            torch.cat(known) if known else None,
        )

    def _at(self, places: list[int]) -> "Scores":
        part = None if self.descriptor is None else self.descriptor[places]
        return Scores(tuple(self.records[i] for i in places), self.score[places], self.peak[places], part)


def score_records(engine: TorchEngine, records: Sequence[Record], *, label: str, batch_size: int = 16) -> Scores:
    """Inspect the images of `records`, with a progress bar called `label`. Raises InputError for an unreadable one."""
    scores: list[torch.Tensor] = []
    peaks, descriptors = [], []
    with ThreadPoolExecutor(2) as readers, progress_bar(label, total=len(records)) as bar:
        remaining = iter(records)
        ahead = [readers.submit(_read, record, engine) for record in islice(remaining, 2 * batch_size)]
        while ahead:
            try:
                images = [future.result() for future in ahead[:batch_size]]
            except InputError:
                decode_all(records, engine.channels)  # raises an error that names all of them
                raise
            ahead = ahead[batch_size:]
            ahead += [readers.submit(_read, record, engine) for record in islice(remaining, len(images))]
            output = engine.inspect(images)
            names = [str(record.image) for record in records[batch_size * len(scores) :][: len(images)]]
            refuse_not_finite(output.score.cpu().numpy(), output.map.cpu().numpy(), names)
            scores.append(output.score.cpu())
            peaks.append(output.map.amax(dim=(1, 2)).cpu())
            if output.descriptor is not None:
                descriptors.append(output.descriptor.cpu())
            bar.update(len(images))
    return Scores(
        tuple(records),
        torch.cat(scores).double().numpy() if scores else np.zeros(0),
        torch.cat(peaks).double().numpy() if peaks else np.zeros(0),
        torch.cat(descriptors) if descriptors else None,
    )


def _read(record: Record, engine: TorchEngine) -> np.ndarray:
    return read_image(
        record.image, max_pixels=DATA_SET_PIXELS, white_level=engine.white_level, channels=engine.channels
    )
