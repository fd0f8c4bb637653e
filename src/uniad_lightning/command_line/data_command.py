"""`uniad data [NAME [data.root=DIR]]`: which data sets there are, how their folders look, whether a copy is whole."""

from pathlib import Path

from uniad_lightning.command_line.words import conf_dir, data_options
from uniad_lightning.data.layouts.catalogue import CATALOGUE, describe, differences, with_hint
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.errors import InputError, did_you_mean, say
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.tables import show_counts

_ROOT = "data.root="


def show_data_sets(words: list[str]) -> bool:
    """Print the list, one of its entries, or what a copy of it holds; False if the copy has not the published numbers.

    Raises InputError for an unknown name, a word that is none, a copy of what was not published, and what the listing
    refuses.
    """
    names = [word for word in words if not word.startswith(_ROOT) and word not in ("-h", "--help")]
    roots = [word.removeprefix(_ROOT) for word in words if word.startswith(_ROOT)]
    if len(names) > 1 or len(roots) > len(names):
        raise InputError(f"uniad data {' '.join(words)}: expected uniad data [NAME [data.root=DIR]]")
    own = _own_layouts()
    if not names:
        titles = {**{name: published.title for name, published in CATALOGUE.items()}, **own}
        width = max(map(len, titles))
        say("\n".join(f"{name:{width}}  {title.splitlines()[0]}" for name, title in titles.items()))
        return True
    (name,) = names
    if name not in CATALOGUE and (name not in own or roots):
        known = (*CATALOGUE, *(() if roots else own))
        raise InputError(f"uniad data {name}: no such data set.{did_you_mean(name, known)} Known: {', '.join(known)}")
    say(describe(name) if name in CATALOGUE else own[name])
    return _verify(name, on_disk(expand(roots[0]))) if roots else True


def _own_layouts() -> dict[str, str]:
    """The options of `data=` that are no public data set, each with the comment on top of its file."""
    texts = {}
    for name in data_options():
        if name not in CATALOGUE:
            lines = (conf_dir() / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
            texts[name] = "\n".join(line.removeprefix("#").removeprefix(" ") for line in top)
    return texts


def _verify(name: str, root: Path) -> bool:
    """Print what the copy at `root` holds, and where that is not what was published."""
    published = CATALOGUE[name]
    try:
        splits = published.listing(root, categories=None)
    except InputError as error:
        raise with_hint(error, root=root, listing=published.listing) from None
    show_counts(splits)
    wrong = differences(published, splits)
    say("\n".join(wrong) if wrong else f"no number of images differs from those published of {published.title}")
    return not wrong
