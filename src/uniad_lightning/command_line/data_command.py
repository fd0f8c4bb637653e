"""`uniad data [NAME [data.root=DIR [check=true [out=DIR]]]]`: list data sets, print a layout, count a copy.

`data.channels` are those of its images' files. With `check=true` every file of the copy is opened (`data_check`).

Heavy modules are imported inside functions, so that a list or a description is there at once.
"""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniad_lightning.command_line.parsing import conf_dir, data_options
from uniad_lightning.data.layouts.catalogue import CATALOGUE, describe, differences, with_hint
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.layouts.skipped import counting
from uniad_lightning.errors import InputError, did_you_mean, print_stderr, print_stdout
from uniad_lightning.files.user_path import expand

if TYPE_CHECKING:
    from uniad_lightning.data.images.channels import Channels

_ROOT, _CHECK, _OUT, _CHANNELS = "data.root=", "check=", "out=", "data.channels="
_CHECKED = "data_check"  # the folder of the report where out= gives none
_OWN = "folder"  # the layout of a user's own images that needs no further setting


def show_data_sets(arguments: list[str]) -> bool:
    """Print the list, one entry, or what a copy holds.

    False if the copy differs from the published numbers or, with check=true, if errors or warnings were found.

    Raises InputError for an unknown name, other arguments, a data.root of a layout that needs more than that, and
    images that cannot be listed or, of a user's own, cannot be used.
    """
    keys = (_ROOT, _CHECK, _OUT, _CHANNELS)
    names = [given for given in arguments if not given.startswith(keys) and given not in ("-h", "--help")]
    roots, checks, outs, channels = (
        [given.removeprefix(key) for given in arguments if given.startswith(key)] for key in keys
    )
    checked = checks == ["true"]
    known_check = checked or checks in ([], ["false"])
    too_many = len(names) > 1 or len(roots) > len(names) or len(outs) > checked or len(channels) > len(roots)
    if too_many or not known_check or (checked and not roots):
        raise InputError(
            f"uniad data {' '.join(arguments)}: expected uniad data [NAME [data.root=DIR]] or uniad data NAME "
            "data.root=DIR check=true [out=DIR]; with data.root=DIR also data.channels=[...]"
        )
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
    taken = _channels(channels[0]) if channels else None
    if checked:
        return _check(name, on_disk(expand(roots[0])), expand(outs[0] if outs else _CHECKED), taken)
    if roots and name == _OWN:
        return _count_own(on_disk(expand(roots[0])), taken)
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


def _channels(text: str) -> "Channels | None":
    from uniad_lightning.data.images.channels import check_channels

    try:
        given = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of too many digits, brackets too deep
        given = f"{text:.100}"
    return check_channels(given)


def _check(name: str, root: Path, out: Path, channels: "Channels | None") -> bool:
    """Open every file at `root` and report; True without errors and warnings."""
    from uniad_lightning.data.layouts.folder import list_folder
    from uniad_lightning.data_check.check import check_data

    if name == _OWN:
        return check_data(list_folder, root, held_out=_own_settings().held_out, out=out, channels=channels)
    return check_data(CATALOGUE[name].listing, root, held_out=0, out=out, channels=channels)


def _own_settings() -> Any:
    """The settings of a user's own images in folders as they lie."""
    from omegaconf import OmegaConf

    return OmegaConf.load(conf_dir() / "data" / f"{_OWN}.yaml")


def _count_own(root: Path, channels: "Channels | None") -> bool:
    """Print how a training would divide a user's own images at `root`; True, since no numbers are published."""
    from uniad_lightning.data.checking import check_files
    from uniad_lightning.data.layouts.folder import list_folder
    from uniad_lightning.data.listing import list_records
    from uniad_lightning.data.selection import hold_out
    from uniad_lightning.results.tables import show_counts

    with counting() as skipped:
        listed = list_records(list_folder, root, None)
    splits = hold_out(listed, _own_settings().held_out)
    if str(skipped):
        print_stderr(f"warning: {skipped}")
    show_counts(splits)
    check_files(splits.all, channels)
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
