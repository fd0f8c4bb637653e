"""Checks of images among each other: copies, near copies, and images of one product under another's name.

Images are compared by their decoded pixels, and as RGB pictures of 32 x 32 pixels by the root mean square of their
difference. Mirrored, turned and shifted copies are not found.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from uniad_lightning.data_check.findings import Finding
from uniad_lightning.data_check.looks import TEST, TRAIN, Look

# A photograph compressed, halved or both is 0.4 to 3.3 levels from itself, another of the same product under a fixed
# camera 4 and more (five products); of products that hardly differ, a share of what their images usually do.
_NEAR = 2.5  # grey levels of 255
_ALIKE = 0.15  # of the median distance between images of the product
_NEIGHBOURS, _AGREE = 5, 4  # an image is of the product of so many of its nearest images
_ENOUGH = 6  # images of a product, below which its own cannot be a majority among the nearest
_SAMPLE = 200  # images of a product for its median distance
_CHUNK = 512  # images compared with all others at once


def check_copies(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images whose pixels are those of another, each compared with the first of them, a train image if there is one."""
    groups: dict[bytes, list[Look]] = defaultdict(list)
    for look in looks:
        if not look.fault:
            groups[look.digest].append(look)
    for group in groups.values():
        first, *others = sorted(group, key=lambda look: (look.split != TRAIN, look.split == TEST))
        for other in others:
            yield _compared(other, first, "in its pixels the same as")


def check_near_copies(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images that are nearly another one, each compared with its nearest; test images first of all with train images.

    Exact copies are left to `check_copies`.
    """
    seen = [look for look in looks if look.thumb is not None]
    limits = _limits(seen)
    thumbs = _stacked(seen)
    tested = [place for place, look in enumerate(seen) if look.split == TEST]
    others = [place for place, look in enumerate(seen) if look.split != TEST]
    across = _nearest(thumbs[tested], thumbs[others], 1) if tested and others else None
    found = {}
    if across is not None:
        for place, distance, near in zip(tested, across[0][:, 0], across[1][:, 0], strict=True):
            if distance < limits[seen[place].record.category]:
                found[place] = (others[near], distance)
    distances, places = _nearest(thumbs, thumbs, 1, themselves=True)
    for place, (distance, near) in enumerate(zip(distances[:, 0], places[:, 0], strict=True)):
        if place not in found and distance < limits[seen[place].record.category] and found.get(near, (-1,))[0] != place:
            found[place] = (int(near), distance)
    for place, (near, distance) in sorted(found.items()):
        if seen[place].digest != seen[near].digest:
            pair = _compared(seen[place], seen[near], f"{distance:.1f} grey levels from")
            yield pair._replace(kind=_NEARLY.get(pair.kind, "near copy"))


_NEARLY = {"copy in train and test": "near copy in train and test"}


def check_products(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images whose nearest images are of one other product, four of five; found are single ones, no whole folder.

    A product of fewer than six images is left out: it has too few neighbours.
    """
    seen = [look for look in looks if look.thumb is not None]
    names = sorted({look.record.category for look in seen})
    if len(names) < 2 or len(seen) <= _NEIGHBOURS:
        return
    owners = np.array([names.index(look.record.category) for look in seen])
    thumbs = _stacked(seen)
    _, places = _nearest(thumbs, thumbs, _NEIGHBOURS, themselves=True)
    for place, near in enumerate(places):
        votes = np.bincount(owners[near], minlength=len(names))
        winner = int(votes.argmax())
        if winner != owners[place] and votes[winner] >= _AGREE and (owners == owners[place]).sum() >= _ENOUGH:
            other = seen[next(i for i in near if owners[i] == winner)].record.image
            found = (
                f"labelled {names[owners[place]]}, but {votes[winner]} of the {_NEIGHBOURS} images most like it are "
                f"of {names[winner]}"
            )
            yield Finding("looks like another product", seen[place].record.image, found, other)


def _compared(look: Look, other: Look, relation: str) -> Finding:
    """The finding that `look` is a copy of `other`."""
    apart = {look.split, other.split}
    if look.record.label != other.record.label:
        kind = "good and defective" if apart == {TEST} else "defect in the training"
    elif len(apart) == 2:
        kind = "copy in train and test"
    else:
        kind = "copy" if look.record.category == other.record.category else "copy in two products"
    found = f"{_place(look)} is {relation} {_place(other)}"
    return Finding(kind, look.record.image, found, other.record.image)


def _place(look: Look) -> str:
    return f"a {look.split} image of {look.record.category} ({look.record.defect})"


def _limits(seen: Sequence[Look]) -> dict[str, float]:
    """For each category the distance below which two images are nearly the same; 0 with fewer than three images."""
    groups: dict[str, list[Look]] = defaultdict(list)
    for look in seen:
        groups[look.record.category].append(look)
    limits = {}
    for name, group in groups.items():
        sample = _stacked(group[:: -(-len(group) // _SAMPLE)])
        pairs = _distances(sample, sample)[np.triu_indices(len(sample), 1)]
        limits[name] = min(_NEAR, _ALIKE * float(np.median(pairs))) if len(sample) > 2 else 0.0
    return limits


def _stacked(seen: Sequence[Look]) -> np.ndarray:
    """The small pictures (n, 3072) uint8 of images that could be read."""
    thumbs = [look.thumb.ravel() for look in seen if look.thumb is not None]
    return np.stack(thumbs) if thumbs else np.zeros((0, 0), dtype=np.uint8)


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square differences (n, m) between pictures (n, d) and (m, d) uint8."""
    left, right = some.astype(np.float32), others.astype(np.float32)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.sqrt(np.maximum(squares, 0) / max(some.shape[1], 1))


def _nearest(
    some: np.ndarray, others: np.ndarray, count: int, *, themselves: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and places (n, count) of the nearest of `others`, without itself where both are the same pictures."""
    distances, places = [], []
    for start in range(0, len(some), _CHUNK):
        between = _distances(some[start : start + _CHUNK], others)
        if themselves:
            rows = np.arange(len(between))
            between[rows, rows + start] = np.inf
        order = np.argsort(between, axis=1, kind="stable")[:, :count]
        places.append(order)
        distances.append(np.take_along_axis(between, order, axis=1))
    if not places:
        return np.zeros((0, count)), np.zeros((0, count), dtype=np.int64)
    return np.concatenate(distances), np.concatenate(places)
