"""The public data sets that can be listed, by their name in `data=NAME` and `uniad data NAME`."""

import shlex
from collections.abc import Callable
from pathlib import Path

from uniad_lightning.data.layouts.btad import BTAD
from uniad_lightning.data.layouts.cifar10 import CIFAR10
from uniad_lightning.data.layouts.folder_categories import is_category
from uniad_lightning.data.layouts.kolektor import KOLEKTOR_SDD
from uniad_lightning.data.layouts.listing import LayoutError, any_folder
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


def _is_mvtec(root: Path) -> bool:
    """Whether `root` has the layout of MVTec AD and is not MPDD, which has the same."""
    return MVTEC.recognise(root) and not MPDD.recognise(root)


CATALOGUE: dict[str, Published] = {
    "btad": BTAD,
    "cifar10": CIFAR10,
    "kolektor_sdd": KOLEKTOR_SDD,
    "mpdd": MPDD,
    "mvtec": MVTEC._replace(recognise=_is_mvtec),
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
    names = [name for name, published in CATALOGUE.items() if published.recognise(root)]
    return f"; it looks like data={' or data='.join(names)}" if names else ""


def with_hint(error: InputError, *, root: Path, listing: Callable[..., Splits]) -> InputError:
    """`error`, which `listing` raised over `root`, with a hint at another layout that `root` has instead."""
    own = [published for published in CATALOGUE.values() if published.listing is listing]
    own_folders = not own and not isinstance(error, LayoutError)  # a user's folders may look like any layout
    if own_folders or any(published.recognise(root) for published in own):
        return error
    return InputError(f"{error}{recognise(root) or (_as_own(root) if own else _as_category(root))}")


def _as_category(root: Path) -> str:
    """`; it looks like a category of data=NAME` where `root` is that, or an empty string."""
    parent, category = root.absolute().parent, root.absolute().name
    if not any((root / part).is_dir() for part in _IN_CATEGORIES):
        return ""
    names = [name for name, published in CATALOGUE.items() if published.recognise(parent)]
    if not names:
        return ""
    if names == ["mvtec"]:
        given = shlex.quote(f"data.root={root}")
        return f"; it looks like a category of data=mvtec, which takes it as it is: give data=mvtec {given}"
    known = " or data=".join(names)
    return f"; it looks like a category of data={known}: give data.root={parent} 'data.categories=[{category}]'"


def _as_own(root: Path) -> str:
    """`; it looks like data=folder` where `root` holds, or is, a category of a user's own."""
    return "; it looks like data=folder" if is_category(root) or any_folder(root, is_category) else ""


def describe(name: str) -> str:
    """Title, source, licence, citation and folder layout of the data set called `name`, as lines of text."""
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
    """One line for each number of images that is not the published one, and for each category of one side only."""
    listed = {
        row.category: Images(row.train_good, row.validation_good, row.test_good, row.test_defective)
        for row in counts(splits)
    }
    if ALL in published.images:
        listed = {ALL: Images(*(sum(column) for column in zip(*listed.values(), strict=True)))}
    lines = []
    for category in sorted(published.images.keys() | listed.keys()):
        counted, expected = listed.get(category), published.images.get(category)
        if counted is None:
            lines.append(f"{category}: missing")
        elif expected is None:
            lines.append(f"{category}: not a category of {published.title}")
        else:
            lines += [
                f"{category}: {value} {field.replace('_', ' ')} images, published {other}"
                for field, value, other in zip(Images._fields, counted, expected, strict=True)
                if other is not None and value != other
            ]
    return lines
