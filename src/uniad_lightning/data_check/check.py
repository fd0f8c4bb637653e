"""`check_data`: list a data set, open every file of it, and report what is wrong."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from uniad_lightning.data.feature_cache.loader import usable_cores
from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.image_file import DATA_SET_PIXELS
from uniad_lightning.data.images.white_level import AUTO, as_number, find_white_level
from uniad_lightning.data.layouts.catalogue import with_hint
from uniad_lightning.data.layouts.listing import LayoutError, check_root, is_image
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.data.selection import hold_out
from uniad_lightning.data_check.balance import check_counts, check_likeness
from uniad_lightning.data_check.findings import NOTE, Finding, worst_first
from uniad_lightning.data_check.folders import Tree, check_unused, check_unused_masks, in_mask_folder, unused, walk
from uniad_lightning.data_check.looks import look_at, look_at_masks
from uniad_lightning.data_check.pairs import check_copies, check_near_copies, check_products
from uniad_lightning.data_check.report import show, summary, write
from uniad_lightning.data_check.single import check_images
from uniad_lightning.errors import InputError, explain_system, print_stdout
from uniad_lightning.files.within import is_within
from uniad_lightning.results.tables import show_counts


def check_data(
    listing: Callable[..., Splits], root: Path, *, held_out: float, out: Path, channels: Channels | None = None
) -> bool:
    """Check what `listing` finds at `root`, print a report and write it into `out`; True without errors and warnings.

    `channels` of each image file are red, green and blue; None: as the file says.
    Where the listing refuses the files, that is an error of the report, and all images below `root` are opened.
    Raises InputError where `root` is no folder or has another layout, and for an `out` inside of it or that is a file.
    """
    if is_within(root, out):
        raise InputError(f"out={out}: lies in data.root={root}, where its files would be data; give another folder")
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out}: is a file; expected a folder for the report: give another")
    check_root(root, "the data set")
    tree = walk(root)
    splits, refusal = _listed(listing, root, held_out, tree)
    records = splits.all
    if not refusal:
        show_counts(splits)
    found = find_white_level(splits.train, threads=usable_cores(), channels=channels)
    read = partial(read_image, max_pixels=DATA_SET_PIXELS, white_level=as_number(found or AUTO), channels=channels)
    looks = look_at(splits, read)
    findings = [*refusal, *tree.findings, *check_images(looks)]
    if not refusal:
        rest = unused(tree.files, records)
        masks = look_at_masks([path for path in rest if is_image(path) and in_mask_folder(path, root)])
        findings += [*check_unused(rest, root), *check_unused_masks(masks, records, root)]
        findings += [*check_copies(looks), *check_near_copies(looks), *check_products(looks)]
        findings += [*check_counts(splits), *check_likeness(splits, looks)]
    findings = worst_first(findings)
    show(findings, root)
    files = write(out, findings, root, read)
    number = len(records) + sum(len(record.masks) for record in records)
    print_stdout(f"{number} files of {root} opened: {summary(findings)}; files: {' '.join(map(str, files))}")
    return all(finding.severity == NOTE for finding in findings)


def _listed(listing: Callable[..., Splits], root: Path, held_out: float, tree: Tree) -> tuple[Splits, list[Finding]]:
    """The splits; where the listing refuses them, the images below `root` as one split, and the finding of it."""
    try:
        return hold_out(listing(root, categories=None), held_out), []
    except LayoutError as error:
        raise with_hint(error, root=root, listing=listing) from None
    except (InputError, OSError) as error:
        reason = (explain_system(error) if isinstance(error, OSError) else None) or str(error)
        images = [path for path in tree.files if is_image(path) and not in_mask_folder(path, root)]
        records = tuple(Record(path, (), root.name, GOOD, 0) for path in sorted(images))
        return Splits((root.name,), records, ()), [Finding("listing refused", root, reason)]
