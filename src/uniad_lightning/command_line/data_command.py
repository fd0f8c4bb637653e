"""`uniad data [NAME [data.root=DIR]]`: list the data sets, print the layout of one, count and check a copy of it.

Heavy modules are imported inside functions, so that a list or a description is there at once.
"""

import shlex
from pathlib import Path

from uniad_lightning.command_line.parsing import conf_dir, data_options
from uniad_lightning.data.layouts.catalogue import CATALOGUE, describe, differences, with_hint
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.layouts.skipped import counting
from uniad_lightning.errors import InputError, did_you_mean, print_stderr, print_stdout
from uniad_lightning.files.user_path import expand

_ROOT = "data.root="
_OWN = "folder"  # the layout of a user's own images that needs no further setting


def show_data_sets(arguments: list[str]) -> bool:
    """Print the list, one entry, or what a copy holds; False if the copy differs from the published numbers.

    Raises InputError for an unknown name, other arguments, a data.root of a layout that needs more than that, and
    images that cannot be listed or, of a user's own, cannot be used.
    """
    names = [given for given in arguments if not given.startswith(_ROOT) and given not in ("-h", "--help")]
    roots = [given.removeprefix(_ROOT) for given in arguments if given.startswith(_ROOT)]
    if len(names) > 1 or len(roots) > len(names):
        raise InputError(f"uniad data {' '.join(arguments)}: expected uniad data [NAME [data.root=DIR]]")
    own = _own_layouts()
    if not names:
        titles = {**{name: published.title for name, published in CATALOGUE.items()}, **own}
        width = max(map(len, titles))
        print_stdout("\n".join(f"{name:{width}}  {title.splitlines()[0]}" for name, title in titles.items()))
        return True
    (name,) = names
    if name not in CATALOGUE and (name not in own or (roots and name != _OWN)):
        known = (*CATALOGUE, *([_OWN] if roots else own))
        raise InputError(f"uniad data {name}: no such data set.{did_you_mean(name, known)} Known: {', '.join(known)}")
    if roots and name == _OWN:
        return _count_own(on_disk(expand(roots[0])))
    print_stdout(describe(name) if name in CATALOGUE else own[name])
    return _verify(name, on_disk(expand(roots[0]))) if roots else True


def _own_layouts() -> dict[str, str]:
    """The options of `data=` that are not public data sets, each with the comment on top of its file."""
    texts = {}
    for name in data_options():
        if name not in CATALOGUE:
            lines = (conf_dir() / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
            top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
            texts[name] = "\n".join(line.removeprefix("#").removeprefix(" ") for line in top)
    return texts


def _count_own(root: Path) -> bool:
    """Print how a training would divide a user's own images at `root`; True, since no numbers are published."""
    from omegaconf import OmegaConf

    from uniad_lightning.data.checking import check_files
    from uniad_lightning.data.layouts.folder import list_folder
    from uniad_lightning.data.listing import list_records
    from uniad_lightning.data.selection import hold_out
    from uniad_lightning.results.tables import show_counts

    settings = OmegaConf.load(conf_dir() / "data" / f"{_OWN}.yaml")
    with counting() as skipped:
        listed = list_records(list_folder, root, None)
    splits = hold_out(listed, settings.held_out)
    if str(skipped):
        print_stderr(f"warning: {skipped}")
    show_counts(splits)
    check_files([*splits.train, *splits.validation, *splits.test])
    print_stdout(
        f"all files can be used; train on them with uniad train experiment=parts {shlex.quote(_ROOT + str(root))}"
    )
    return True


def _verify(name: str, root: Path) -> bool:
    """Print what the copy at `root` holds and how it differs from the published numbers; True if it does not."""
    from uniad_lightning.results.tables import show_counts

    published = CATALOGUE[name]
    try:
        splits = published.listing(root, categories=None)
    except InputError as error:
        raise with_hint(error, root=root, listing=published.listing) from None
    show_counts(splits)
    wrong = differences(published, splits)
    print_stdout(
        "\n".join(wrong) if wrong else f"no number of images differs from those published of {published.title}"
    )
    return not wrong
