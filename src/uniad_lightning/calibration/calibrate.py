"""Boundaries between good and defective, set on images that the detector has not seen, and what comes of them."""

import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.calibration.report import Outcome
from uniad_lightning.data.checking import decode_all
from uniad_lightning.data.images.decoding import DATA_SET_PIXELS, read_image
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.patterns import matches
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.data.same_images import among
from uniad_lightning.data.selection import lots
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.boundary import (
    Boundary,
    Calibration,
    at_rate,
    at_score,
    score_at_best_f1,
    score_at_recall,
    supports,
)
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.inspection.result import refuse_not_finite

METHODS = ("rate", "f1", "recall")
REFERENCES = 1000  # train images whose mean features are kept, to tell familiar pictures from others


class Scores(NamedTuple):
    """What an engine says of n records.

    Attributes:
        records: the records.
        score: image scores (n,).
        peak: the anomaly maps' maxima (n,).
        descriptor: mean features (n, C); None of a detector without.
    """

    records: tuple[Record, ...]
    score: np.ndarray
    peak: np.ndarray
    descriptor: Tensor | None

    def of(self, product: str) -> "Scores":
        """Those of one product."""
        return self._at([i for i, record in enumerate(self.records) if record.category == product])

    def labelled(self, label: int) -> "Scores":
        """Those of good images (0) or of defective ones (1)."""
        return self._at([i for i, record in enumerate(self.records) if record.label == label])

    def _at(self, places: list[int]) -> "Scores":
        part = None if self.descriptor is None else self.descriptor[places]
        return Scores(tuple(self.records[i] for i in places), self.score[places], self.peak[places], part)


def score_records(engine: TorchEngine, records: Sequence[Record], *, label: str, batch_size: int = 16) -> Scores:
    """Judge the images of `records` under a progress bar called `label`. Raises InputError for an unreadable one."""
    scores: list[torch.Tensor] = []
    peaks, descriptors = [], []
    pace = 0.2 if sys.stderr.isatty() else 30  # in a log file every refresh is a line
    with ThreadPoolExecutor(2) as readers, tqdm(total=len(records), desc=label, unit="image", mininterval=pace) as bar:
        waiting = iter(records)
        ahead = [readers.submit(_read, record, engine.white_level) for record in islice(waiting, 2 * batch_size)]
        while ahead:
            try:
                images = [future.result() for future in ahead[:batch_size]]
            except InputError:
                decode_all(records)  # to name all of them
                raise
            ahead = ahead[batch_size:]
            ahead += [readers.submit(_read, record, engine.white_level) for record in islice(waiting, len(images))]
            look = engine.look(images)
            names = [str(record.image) for record in records[batch_size * len(scores) :][: len(images)]]
            refuse_not_finite(look.score.cpu().numpy(), look.map.cpu().numpy(), names)
            scores.append(look.score.cpu())
            peaks.append(look.map.amax(dim=(1, 2)).cpu())
            if look.descriptor is not None:
                descriptors.append(look.descriptor.cpu())
            bar.update(len(images))
    return Scores(
        tuple(records),
        torch.cat(scores).double().numpy() if scores else np.zeros(0),
        torch.cat(peaks).double().numpy() if peaks else np.zeros(0),
        torch.cat(descriptors) if descriptors else None,
    )


def _read(record: Record, white_level: int) -> np.ndarray:
    return read_image(record.image, max_pixels=DATA_SET_PIXELS, white_level=white_level)


def check_settings(*, by: str, **shares: float) -> None:
    """Raises InputError for a method that is none, and for shares outside (0, 1)."""
    if by not in METHODS:
        raise InputError(f"by={by}: expected one of {', '.join(METHODS)}")
    for name, value in shares.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise InputError(f"{name}={value}: expected a share above 0 and below 1, such as 0.01")


def not_trained_on(splits: Splits, checkpoint: dict[str, Any]) -> Splits:
    """`splits` without the validation and test images that the checkpoint was trained on.

    Raises InputError for held-out images of a product it was not trained on: under another name its trained images
    would not be known again.
    """
    unknown = {record.category for record in splits.validation} - set(map(composed, checkpoint.get("categories", ())))
    if unknown and "categories" in checkpoint:
        known = ", ".join(checkpoint["categories"])
        raise InputError(
            f"data: held-out images of {', '.join(sorted(unknown))}; the checkpoint was trained on {known}; "
            "calibrate on the data it was trained on, or name good images with good=FOLDER"
        )
    trained = set(checkpoint.get("trained", torch.zeros(0)).tolist())

    def unseen(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(r for r, lot in zip(records, lots(records).tolist(), strict=True) if lot not in trained)

    return splits._replace(validation=unseen(splits.validation), test=unseen(splits.test))


def only_chosen_on(held_out: Scores) -> list[str]:
    """What to warn of where labelled images chose a boundary and nothing else says how it does."""
    if len(held_out.score):
        return []
    return ["no held-out images: the false-alarm rate and the table are of the images that chose the boundary"]


def set_boundaries(held_out: Scores, test: Scores, *, by: str, rate: float, recall: float) -> Calibration:
    """The boundary for all products and one for each, set `by` one of `METHODS`.

    `rate` takes good images alone; `f1` and `recall` choose the score on the labelled images of `test`. Raises
    InputError without the images it needs.
    """
    set_one = {
        "rate": lambda good, _: _by_rate(good, rate),
        "f1": lambda good, labelled: _by_labels(good, labelled, score_at_best_f1),
        "recall": lambda good, labelled: _by_labels(good, labelled, partial(score_at_recall, recall=recall)),
    }[by]
    overall = set_one(held_out, test)
    if overall is None:
        raise InputError(_nothing_to_calibrate_on(by))
    products = {}
    for name in sorted({record.category for record in (*held_out.records, *test.records) if record.category}):
        own = set_one(held_out.of(name), test.of(name))
        if own is not None:
            products[name] = own
    method = {"rate": f"rate={rate}", "f1": "f1", "recall": f"recall={recall}"}[by]
    return Calibration(method, overall, products)


def _by_rate(good: Scores, rate: float) -> Boundary | None:
    return at_rate(good.score, good.peak, rate) if len(good.score) else None


def _by_labels(held_out: Scores, labelled: Scores, choose: Callable[..., float]) -> Boundary | None:
    """The boundary at the score that `choose` finds, its false-alarm rate estimated on held-out images if any."""
    good, defective = labelled.labelled(0), labelled.labelled(1)
    if not len(good.score) or not len(defective.score):
        return None
    known = held_out if len(held_out.score) else good
    return at_score(choose(good.score, defective.score), known.score, known.peak)


def refuse_without_images(good: Sequence[Record], test: Sequence[Record], *, by: str) -> None:
    """Raises InputError where the images are missing that a boundary set `by` needs, before any of them is scored."""
    if not (good if by == "rate" else {0, 1} == {record.label for record in test}):
        raise InputError(_nothing_to_calibrate_on(by))


def _nothing_to_calibrate_on(by: str) -> str:
    if by == "rate":
        return (
            "ckpt_path: the training used all good images, and a boundary set on those would be too low; train with "
            "data.held_out=0.1, or name further good images with good=FOLDER"
        )
    return f"by={by}: needs good and defective test images; use by=rate, which needs good ones alone"


def too_few(calibration: Calibration, rate: float) -> list[str]:
    """What to warn of where the images of a boundary are too few to support `rate`: nothing, or a line or two."""
    needed = math.ceil(1 / rate - 1 - 1e-9)
    overall, lines = calibration.overall, []
    if not supports(overall.images, rate):
        lines.append(
            f"{overall.images} good images cannot support a false-alarm rate of {rate:.2%}, which needs {needed}; the "
            f"highest of their scores is taken: expect {overall.rate:.1%} ({overall.low:.1%} to {overall.high:.1%})"
        )
    few = [f"{name} {own.images}" for name, own in calibration.products.items() if not supports(own.images, rate)]
    if few:
        lines.append(f"the products' own boundaries have fewer than those {needed} good images: {', '.join(few)}")
    return lines


def outcomes(calibration: Calibration, test: Scores) -> tuple[list[Outcome], list[Outcome]]:
    """What the one boundary for all products, and each product's own, would have done on the test images."""
    names = sorted({record.category for record in test.records})

    def done(name: str, boundary: Boundary) -> Outcome:
        good, defective = (test.of(name).labelled(label).score for label in (0, 1))
        alarms, misses = (good > boundary.score).sum(), (defective <= boundary.score).sum()
        return Outcome(name, boundary.score, len(good), int(alarms), len(defective), int(misses))

    one = [done(name, calibration.overall) for name in names]
    own = [done(name, calibration.products[name]) for name in names if name in calibration.products]
    return _with_sum(one), _with_sum(own) if len(own) == len(one) else own


def _with_sum(rows: list[Outcome]) -> list[Outcome]:
    if not rows:
        return rows
    boundary = rows[0].boundary if len({row.boundary for row in rows}) == 1 else float("nan")
    counts = [sum(column) for column in zip(*(row[2:] for row in rows), strict=True)]
    return [*rows, Outcome("all", boundary, *counts)]


def learn_familiar(known: Tensor, held_out: Tensor, rate: float) -> Familiarity:
    """What is familiar: mean features `known` (n, C) of train images; the boundary is set on `held_out` ones."""
    measure = Familiarity(references=known.half(), boundary=1.0)  # as they are kept
    distances = measure.distance(held_out).double().numpy()
    measure.boundary = at_rate(distances, distances, rate).score
    return measure


def spread_over(records: Iterable[Record], count: int) -> list[Record]:
    """About `count` of the records, the same number of each category, evenly spaced; tiles of a picture count once."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not record.tile:
            groups[record.category].append(record)
    spread = []
    for group in groups.values():
        kept = min(max(count // len(groups), 1), len(group))
        spread += [group[i * len(group) // kept] for i in range(kept)]
    return spread


def by_kind(held_out: Scores, test: Scores) -> dict[str, dict[str, np.ndarray]]:
    """Scores by product (further good pictures have none) and kind: `held out`, `good`, `defective`."""
    return {
        name or "further": {
            "held out": held_out.of(name).score,
            "good": test.of(name).labelled(0).score,
            "defective": test.of(name).labelled(1).score,
        }
        for name in sorted({record.category for record in (*held_out.records, *test.records)})
    }


def share_unfamiliar(familiarity: Familiarity, test: Scores) -> dict[str, float]:
    """Share of the good and of the defective test images that are called unfamiliar: a false alarm, both."""
    shares = {}
    for name, label in (("good", 0), ("defective", 1)):
        descriptor = test.labelled(label).descriptor
        if descriptor is not None and len(descriptor):
            shares[name] = float((familiarity.distance(descriptor) > familiarity.boundary).float().mean())
    return shares


def further_good(patterns: str | Sequence[str], known: Splits) -> list[Record]:
    """Records of good pictures of no known product: of a folder, a file, a glob, or several; those held out left out.

    Raises InputError for no picture, and for one that is among the train images of `known`.
    """
    listed = [patterns] if isinstance(patterns, str) else list(patterns) if isinstance(patterns, Sequence) else []
    if not listed or not all(isinstance(one, str) and one for one in listed):
        raise InputError(f"good={patterns}: expected a folder, a file, a glob, or a list of them; quote a number")
    found = {path.resolve(): path for one in listed for path in matches(*_rooted(one), key="good")}
    trained = among(found, known.train)
    if trained:
        raise InputError(
            f"good={patterns}: {found[min(trained)]} and {len(trained) - 1} more were trained on, and their scores "
            "would set the boundary too low; give others"
        )
    held_out = among(found, known.validation)
    return [Record(path, (), "", GOOD, 0) for real, path in sorted(found.items()) if real not in held_out]


def without(splits: Splits, further: Sequence[Record]) -> tuple[Splits, int]:
    """`splits` without the test images that are among the `further` ones, and how many these are.

    They set the boundary, so that of them it cannot be said what it does.
    """
    reused = among({r.image.resolve() for r in splits.test if isinstance(r.image, Path)}, further)
    rest = tuple(r for r in splits.test if not (isinstance(r.image, Path) and r.image.resolve() in reused))
    return splits._replace(test=rest), len(splits.test) - len(rest)


def _rooted(pattern: str) -> tuple[Path, str]:
    """The folder that a pattern starts in, and the rest of it."""
    path = expand(pattern)
    if not path.is_absolute() and ".." not in path.parts:
        return Path.cwd(), str(path)
    path = Path(os.path.abspath(path))
    return Path(path.anchor), str(path.relative_to(path.anchor))
