"""Facts about public data sets: source, licence, and published numbers of images."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.records import Splits


class Images(NamedTuple):
    """Published numbers of images of one category, or of all; None where a number is not published."""

    train_good: int | None
    validation_good: int | None
    test_good: int | None
    test_defective: int | None


class Published(NamedTuple):
    """A public data set.

    Attributes:
        title: its name, as its authors write it.
        layout: the unpacked folder, a few lines of text.
        licence: name of its licence, with what it forbids.
        source: address of the page to get it from.
        reference: authors, title and year of the paper to cite.
        images: published numbers by category; under `all` where only sums are published.
        listing: `listing(root, categories=None)` -> its records.
        recognise: `recognise(root)` -> whether the folder looks like this layout; opens no image, never raises.
    """

    title: str
    layout: str
    licence: str
    source: str
    reference: str
    images: Mapping[str, Images]
    listing: Callable[..., Splits]
    recognise: Callable[[Path], bool]
