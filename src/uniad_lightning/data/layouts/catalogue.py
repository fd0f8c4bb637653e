"""The public data sets that can be listed, by the name that `data=NAME` and `uniad data NAME` have for them."""

from collections.abc import Callable
from pathlib import Path

from uniad_lightning.data.layouts.btad import BTAD
from uniad_lightning.data.layouts.cifar10 import CIFAR10
from uniad_lightning.data.layouts.kolektor import KOLEKTOR_SDD
from uniad_lightning.data.layouts.listing import LayoutError
from uniad_lightning.data.layouts.mpdd import MPDD
from uniad_lightning.data.layouts.mvtec import MVTEC
from uniad_lightning.data.layouts.mvtec_3d import MVTEC_3D
from uniad_lightning.data.layouts.mvtec_ad2 import MVTEC_AD2
from uniad_lightning.data.layouts.mvtec_loco import MVTEC_LOCO
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.layouts.real_iad import REAL_IAD
from uniad_lightning.data.layouts.visa import VISA
from uniad_lightning.data.records import Splits, counts
from uniad_lightning.errors import InputError

CATALOGUE: dict[str, Published] = {
    "btad": BTAD,
    "cifar10": CIFAR10,
    "kolektor_sdd": KOLEKTOR_SDD,
    "mpdd": MPDD,
    "mvtec": MVTEC,
    "mvtec_3d": MVTEC_3D,
    "mvtec_ad2": MVTEC_AD2,
    "mvtec_loco": MVTEC_LOCO,
    "real_iad": REAL_IAD,
    "visa": VISA,
}
_IN_CATEGORIES = ("train", "test", "test_public", "Data")
ALL = "all"  # the row of sums in `Published.images`


def recognise(root: Path) -> str:
    """`; it looks like data=NAME` for the layout that `root` has, or an empty string when it has none of them."""
    found = [name for name, published in CATALOGUE.items() if published.recognise(root)]
    return f"; it looks like data={' or data='.join(found)}" if found else ""


def with_hint(error: InputError, *, root: Path, listing: Callable[..., Splits]) -> InputError:
    """`error`, which `listing` raised over `root`, and which other layout `root` has, if it does not have its own."""
    own = [published for published in CATALOGUE.values() if published.listing is listing]
    ours_alone = not own and not isinstance(error, LayoutError)  # the user's own folders may look like anything
    if ours_alone or any(published.recognise(root) for published in own):
        return error
    return InputError(f"{error}{recognise(root) or ('' if own else _as_category(root))}")


def _as_category(root: Path) -> str:
    """`; it looks like a category of data=NAME` where `root` is that, or an empty string."""
    parent, name = root.absolute().parent, root.absolute().name
    found = (
        []
        if not any((root / part).is_dir() for part in _IN_CATEGORIES)
        else [name for name, published in CATALOGUE.items() if published.recognise(parent)]
    )
    if not found:
        return ""
    known = " or data=".join(found)
    return f"; it looks like a category of data={known}: give data.root={parent} 'data.categories=[{name}]'"


def describe(name: str) -> str:
    """What the data set called `name` is, where to get it, under which licence, and how its folder looks."""
    published = CATALOGUE[name]
    lines = [
        f"{published.title}    data={name}",
        f"get it      {published.source}",
        f"licence     {published.licence}",
        f"cite        {published.reference}",
        "data.root   the folder that holds",
        *(f"              {line}" for line in published.layout.splitlines()),
    ]
    return "\n".join(lines)


def differences(published: Published, splits: Splits) -> list[str]:
    """One line for each category of `splits` whose numbers of images are not the published ones, or that is missing."""
    found = {
        row.category: Images(row.train_good, row.validation_good, row.test_good, row.test_defective)
        for row in counts(splits)
    }
    if ALL in published.images:
        found = {ALL: Images(*(sum(column) for column in zip(*found.values(), strict=True)))}
    lines = []
    for category in sorted(published.images.keys() | found.keys()):
        here, there = found.get(category), published.images.get(category)
        if here is None:
            lines.append(f"{category}: not there")
        elif there is None:
            lines.append(f"{category}: not a category of {published.title}")
        else:
            lines += [
                f"{category}: {mine} {field.replace('_', ' ')} images, published {theirs}"
                for field, mine, theirs in zip(Images._fields, here, there, strict=True)
                if theirs is not None and mine != theirs
            ]
    return lines
