"""The records of a data set, as its layout lists them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from uniad_lightning.data.layouts.catalogue import with_hint
from uniad_lightning.data.layouts.category_names import check_names
from uniad_lightning.data.records import Splits
from uniad_lightning.errors import InputError


def list_records(source: Callable[..., Splits], root: Path, categories: Sequence[str] | None) -> Splits:
    """What `source` lists under `root`.

    Raises InputError, with a hint at the layout that `root` has, for what `source` refuses, and without test images.
    """
    # What is no list is left as it is, for the source to say that it wants one.
    if isinstance(categories, Sequence) and not isinstance(categories, str):
        categories = list(categories)
    try:
        splits = source(root, categories=categories)
        if not splits.test:
            names = ", ".join(splits.categories)
            raise InputError(f"data.root={root}: no test image in {names}; expected some in test/")
    except InputError as error:
        listing = getattr(source, "func", source)  # what a partial calls
        raise with_hint(error, root=root, listing=listing) from None
    check_names({name: f"data.root={root}" for name in splits.categories})
    return splits
