"""Which category an image resembles, learned from train images, and how far that can be relied on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.inspection.boundary import at_rate
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.familiarity import TWIN, Familiarity

CONFIDENT = 0.95  # share of good images whose category must be found right for its own boundary to decide
_MANY = 0.5  # share of good test images; where more look unfamiliar, the others of a category are too much alike
_COPIES = 0.1  # share of the train images
_ALIKE = 0.15  # of the median distance between train images of a category
_SIZE = 256


class Recognition(NamedTuple):
    """What was learned, and tried on good images that it was not learned from.

    Attributes:
        familiarity: the distances, and from which on an image is unfamiliar.
        right: good images whose category was found.
        images: of how many.
        missing: categories of the detector that it knows nothing of.
        compared: by category, train images and `good` ones whose distance is known.
        unfamiliar: by category, how many of these are unfamiliar.
        series: categories whose `good` images are nearly equal to train images, as frames of one video are.
    """

    familiarity: Familiarity
    right: int
    images: int
    missing: tuple[str, ...]
    compared: Counter[str]
    unfamiliar: Counter[str]
    series: tuple[str, ...]

    @property
    def reliable(self) -> bool:
        """Whether the category found in an image may choose the boundary."""
        return not self.missing and self.right >= CONFIDENT * self.images


def learn(
    train: Scores, good: Scores, rate: float, *, before: Familiarity | None, categories: Iterable[str]
) -> Recognition | None:
    """Learn from the mean features of train images; None of a detector without, or from a single image.

    Of those `categories` of the detector that `train` lacks, what was known `before` is kept, and of all of them the
    images that were reviewed as good. The boundary of what is familiar leaves about a share `rate` of good images
    beyond it: of all these, each among the others, as of the `good` ones, which were not trained on.
    """
    familiarity = _references(train, before, categories)
    if familiarity is None:
        return None
    distance, found = familiarity.apart()
    own = [familiarity.names[place] for place in familiarity.owners.tolist()]
    if good.descriptor is not None:
        more, more_found = familiarity.nearest(good.descriptor)
        distance, found = torch.cat([distance, more]), torch.cat([found, more_found])
        own += [record.category for record in good.records]
    finite = distance.isfinite()
    distances = distance[finite].double().numpy()
    familiarity.boundary = max(at_rate(distances, distances, rate).score, TWIN) if len(distances) else TWIN
    nearest = [familiarity.names[place] for place in found.tolist()]
    triples = list(zip(own, nearest, finite.tolist(), strict=True))
    right = [name == resembled for name, resembled, usable in triples if name and usable]
    beyond = [
        (name or resembled, strange)
        for (name, resembled, usable), strange in zip(triples, (distance > familiarity.boundary).tolist(), strict=True)
        if usable
    ]
    compared, unfamiliar = Counter(name for name, _ in beyond), Counter(name for name, strange in beyond if strange)
    missing = tuple(sorted({*categories} - {*familiarity.names}))
    return Recognition(familiarity, sum(right), len(right), missing, compared, unfamiliar, _series(familiarity, good))


def _series(familiarity: Familiarity, good: Scores) -> tuple[str, ...]:
    """Categories whose good images lie far nearer to a train image than train images of the category do to each other.

    Of photographs taken one by one, the nearest is 0.36 to 0.61 of the median distance away (four real products).
    """
    found = []
    for place, name in enumerate(familiarity.names):
        descriptor = good.of(name).descriptor
        if descriptor is not None and len(descriptor):
            nearest = float(familiarity.distance(descriptor).median())
            if nearest < _ALIKE * familiarity.spread(place):
                found.append(name)
    return tuple(found)


def _references(train: Scores, before: Familiarity | None, categories: Iterable[str]) -> Familiarity | None:
    """Mean features of train images, and what is kept of those `before`; None of fewer than two."""
    own = [record.category for record in train.records]
    parts = [] if train.descriptor is None else [train.descriptor]
    reviewed = 0
    if before is not None:
        wanted, trained = {*categories}, {*own}
        first = len(before.references) - before.reviewed
        owners = [before.names[place] if place >= 0 else None for place in before.owners.tolist()]
        kept = [i for i, name in enumerate(owners) if name in wanted and (name not in trained or i >= first)]
        own += [before.names[place] for place in before.owners[kept].tolist()]
        parts.append(before.references[kept])
        reviewed = sum(i >= first for i in kept)
    if not parts or len(own) < 2:
        return None
    names = sorted({*own})
    places = torch.tensor([names.index(name) for name in own])
    # Half precision, as checkpoints store them.
    return Familiarity(references=torch.cat(parts).half(), boundary=1.0, names=names, owners=places, reviewed=reviewed)


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


def warn_of_useless(engine: TorchEngine, recognition: Recognition, unfamiliar: dict[str, float]) -> list[str]:
    """Warnings where nearly everything looks unfamiliar, images of nothing look familiar, or images are copies."""
    lines, familiarity = [], recognition.familiarity
    if recognition.series:
        lines.append(
            f"held-out images of {', '.join(recognition.series)} are nearly equal to train images, as frames of a "
            "series are, so the boundary will be too low for other images: hold out whole series, and give them as "
            "good=FOLDER"
        )
    lines += _copies_said(familiarity)
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


def _copies_said(familiarity: Familiarity) -> list[str]:
    lines = []
    copies, shared = familiarity.copies()
    if shared:
        lines.append(
            f"the same photographs are train images of {' and '.join(shared)}; give each to one category alone"
        )
    if copies > _COPIES * len(familiarity.references):
        lines.append(
            f"{copies} of {len(familiarity.references)} train images are copies of others: they teach nothing new, and "
            "test images may be copies, too"
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
