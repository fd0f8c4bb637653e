"""Which category an image resembles, learned from train images, and how far that can be relied on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.inspection.boundary import at_rate
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.familiarity import Familiarity

CONFIDENT = 0.95  # share of good images whose category must be found right for its own boundary to decide
_MANY = 0.5  # share of good test images; where more look unfamiliar, the others of a category are too much alike
_SIZE = 256


class Recognition(NamedTuple):
    """What was learned, and tried on good images that it was not learned from.

    Attributes:
        familiarity: the distances, and from which on an image is unfamiliar.
        right: good images whose category was found.
        images: of how many.
    """

    familiarity: Familiarity
    right: int
    images: int

    @property
    def reliable(self) -> bool:
        """Whether the category found in an image may choose the boundary."""
        return self.right >= CONFIDENT * self.images


def learn(train: Scores, held_out: Scores, rate: float) -> Recognition | None:
    """Learn from the mean features of train images; None of a detector without, or from a single image.

    The boundary of what is familiar leaves about a share `rate` of good images beyond it: of the train images, each
    among the others, as of the `held_out` ones.
    """
    if train.descriptor is None or len(train.records) < 2:
        return None
    names = sorted({record.category for record in train.records})
    familiarity = Familiarity(
        references=train.descriptor.half(),  # as checkpoints store them
        boundary=1.0,
        names=names,
        owners=torch.tensor([names.index(record.category) for record in train.records]),
    )
    distance, found = familiarity.apart()
    records = list(train.records)
    if held_out.descriptor is not None:
        more, more_found = familiarity.nearest(held_out.descriptor)
        distance, found = torch.cat([distance, more]), torch.cat([found, more_found])
        records += held_out.records
    distances = distance.double().numpy()
    familiarity.boundary = at_rate(distances, distances, rate).score
    known = [(r.category, names[i]) for r, i in zip(records, found.tolist(), strict=True) if r.category]
    return Recognition(familiarity, sum(own == other for own, other in known), len(known))


def with_categories(scores: Scores, familiarity: Familiarity) -> Scores:
    """The same with the category found in an image where its record has none."""
    if scores.descriptor is None:
        return scores
    _, found = familiarity.nearest(scores.descriptor)
    records = (
        record._replace(category=record.category or familiarity.names[place])
        for record, place in zip(scores.records, found.tolist(), strict=True)
    )
    return scores._replace(records=tuple(records))


def share_unfamiliar(familiarity: Familiarity, test: Scores) -> dict[str, float]:
    """Share of the good and of the defective test images that are called unfamiliar; for both that is a false alarm."""
    shares = {}
    for name, label in (("good", 0), ("defective", 1)):
        descriptor = test.labelled(label).descriptor
        if descriptor is not None and len(descriptor):
            shares[name] = float((familiarity.distance(descriptor) > familiarity.boundary).float().mean())
    return shares


def warn_of_useless(engine: TorchEngine, familiarity: Familiarity, unfamiliar: dict[str, float]) -> list[str]:
    """Warnings, at most two, where nearly everything looks unfamiliar, and where images of nothing look familiar."""
    lines = []
    if unfamiliar.get("good", 0.0) > _MANY:
        lines.append(
            f"{unfamiliar['good']:.0%} of the good test images look unfamiliar, and would be called unknown: are the "
            "train images series of nearly equal photographs? Train on more various ones, and hold whole series out "
            "(good=FOLDER)"
        )
    descriptor = engine.inspect(list(_nothing().values())).descriptor
    if descriptor is None:
        return lines
    near = familiarity.distance(descriptor) <= familiarity.boundary
    alike = [name for name, familiar in zip(_nothing(), near.tolist(), strict=True) if familiar]
    if alike:
        lines.append(
            f"{_listed(alike)} looks familiar to this detector, so do not rely on `familiar`: the train images differ "
            "from each other as much"
        )
    return lines


def _nothing() -> dict[str, np.ndarray]:
    """Images (H, W, 3) uint8 on which no part is to be seen."""
    size = (_SIZE, _SIZE, 3)
    flat = {f"a {name} image": np.full(size, value, dtype=np.uint8) for name, value in _GREYS.items()}
    return {**flat, "noise": np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)}


_GREYS = {"black": 0, "grey": 128, "white": 255}


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
