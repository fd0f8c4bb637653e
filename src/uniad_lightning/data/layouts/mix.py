"""Several data sets as one, with the categories of all of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from uniad_lightning.data.layouts.catalogue import CATALOGUE, with_hint
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.folder import list_folder
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.listing import choose
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand

LISTINGS: dict[str, Callable[..., Splits]] = {
    **{name: published.listing for name, published in CATALOGUE.items()},
    "folder": list_folder,
    "meta": list_meta,
}

_NOT_OF_A_PART = ("root", "categories", "train_needed")


def list_mix(
    root: Path,
    *,
    parts: Mapping[str, str | Mapping[str, Any]],
    test_share: float = 0.2,
    categories: Sequence[str] | None = None,
    train_needed: bool = True,
) -> Splits:
    """Records of all `parts`, in their order: name -> folder, where the name is that of a layout, or name -> settings.

    Settings are `layout`, `root`, and further keys of that layout's listing, such as `products` of `folder`. Folders
    are relative to `root`. A category that two parts have is named `<part>-<category>` in both. `test_share` applies to
    parts of the layout `folder` that do not set it.

    Raises InputError for no part, an unknown layout or key, what the listings refuse, and names that still collide.
    """
    if not isinstance(parts, Mapping) or not parts:
        raise InputError(f"data.source.parts={parts}: expected folders by layout, such as {{mvtec:DIR,visa:DIR}}")
    defaults = {"test_share": test_share, "train_needed": train_needed}
    for name in parts:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"data.source.parts: the name {name!r} is no text; quote it")
    settings = {composed(str(name).lstrip(" ")): part for name, part in parts.items()}
    listed = {name: _list_part(name, part, root, defaults) for name, part in settings.items()}
    named = _with_distinct_names(listed)
    _refuse_repeated(named)
    chosen = choose(categories, [category for splits in named for category in splits.categories], root)

    def of_all(split: str) -> tuple[Record, ...]:
        return tuple(record for part in named for record in getattr(part, split) if record.category in chosen)

    return Splits(chosen, of_all("train"), of_all("test"), of_all("validation"))


def _with_distinct_names(listed: Mapping[str, Splits]) -> list[Splits]:
    """The parts, a category that several have renamed to `<part>-<category>`; InputError for names that collide."""
    counts = Counter(category for splits in listed.values() for category in splits.categories)
    named = [
        _renamed(splits, {c: f"{name}-{c}" if counts[c] > 1 else c for c in splits.categories})
        for name, splits in listed.items()
    ]
    for category, count in Counter(category for splits in named for category in splits.categories).items():
        if count > 1:
            raise InputError(f"data.source.parts: two categories are named {category}; rename one of the parts")
    return named


def _refuse_repeated(parts: Sequence[Splits]) -> None:
    """Raises InputError for an image that two parts have: one could train on what the other tests."""
    taken: dict[object, int] = {}
    for number, part in enumerate(parts):
        for record in (*part.train, *part.test, *part.validation):
            if taken.setdefault(record.image, number) != number:
                raise InputError(f"{record.image}: in two of data.source.parts; narrow one, so that they are apart")


def _list_part(name: str, part: str | Mapping[str, Any], root: Path, defaults: Mapping[str, Any]) -> Splits:
    """Records of one part: its folder or settings; `defaults` are keys of listings that it need not set."""
    key = f"data.source.parts.{name}"
    settings: dict[str, Any] = {str(k): v for k, v in part.items()} if isinstance(part, Mapping) else {"root": part}
    layout, folder = str(settings.pop("layout", name)), settings.pop("root", None)
    if layout not in LISTINGS:
        raise InputError(
            f"{key}: no layout '{layout}'.{did_you_mean(layout, LISTINGS)} Name one as the key or by layout: "
            f"{', '.join(sorted(LISTINGS))}"
        )
    if not isinstance(folder, str):
        raise InputError(f"{key}: got {folder} for its root, expected the folder of the images")
    _check_keys(key, layout, settings)
    path = on_disk(root / expand(folder, within=root))
    try:
        known = signature(LISTINGS[layout]).parameters
        used = {key: value for key, value in defaults.items() if key in known}
        return LISTINGS[layout](path, categories=None, **{**used, **settings})
    except InputError as error:
        raise InputError(f"{key}: {with_hint(error, root=path, listing=LISTINGS[layout])}") from None


def _check_keys(key: str, layout: str, settings: Mapping[str, Any]) -> None:
    """Raises InputError for a key that the layout's listing does not have, and for a missing one that it needs."""
    known = {n: p for n, p in signature(LISTINGS[layout]).parameters.items() if n not in _NOT_OF_A_PART}
    for name in settings:
        if name not in known:
            raise InputError(
                f"{key}: {layout} has no key '{name}'.{did_you_mean(name, known)} Keys: {', '.join(known)}"
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in settings:
            raise InputError(f"{key}: {layout} needs {name}; give {{layout: {layout}, root: DIR, {name}: ...}}")


def _renamed(splits: Splits, names: Mapping[str, str]) -> Splits:
    """`splits` with new `names` for its categories, by the old ones."""

    def renamed(records: Sequence[Record]) -> tuple[Record, ...]:
        return tuple(record._replace(category=names[record.category]) for record in records)

    return Splits(
        tuple(sorted(names.values())), renamed(splits.train), renamed(splits.test), renamed(splits.validation)
    )
