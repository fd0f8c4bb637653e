"""The train images of a run by name, as a checkpoint stores them, and whether a resumed run still has the same."""

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.data.selection import image_groups
from uniad_lightning.errors import InputError

_EXAMPLES = 3  # images named in a message
MOST_REFITTED = 2000  # train images; with more, enough can be held out, and a fit takes minutes


def image_names(records: Iterable[Record], root: Path) -> list[str]:
    """The path of each image below the `root` of its data set, its category included; the same on any machine."""
    return [_name(record, root) for record in records if not record.tile]  # of an image cut into tiles, the first alone


def _name(record: Record, root: Path) -> str:
    file, place = record.image if isinstance(record.image, Packed) else (record.image, None)
    # Images outside the root, of a list or of several data sets, are named by their last folders, as in
    # `selection.image_groups`.
    parts = file.relative_to(root).parts if file.is_relative_to(root) else file.parts[-3:]
    name = "/".join(parts if record.category in parts else [record.category, *parts]) + (
        "" if place is None else f"#{place}"
    )
    return unicodedata.normalize("NFC", name)  # macOS decomposes characters that are one elsewhere


def pack_names(names: Iterable[str]) -> Tensor:
    """Names as a tensor (n,) uint8, compressed."""
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return torch.frombuffer(bytearray(zlib.compress(text)), dtype=torch.uint8)


def unpack_names(packed: Tensor) -> list[str]:
    """The opposite of `pack_names`."""
    return zlib.decompress(packed.numpy().tobytes()).decode("utf-8", "surrogateescape").split("\0")


def check_images(
    cfg: DictConfig, data: UnifiedDataModule, checkpoint: dict[str, Any] | None, initial: dict[str, Any] | None
) -> None:
    """Raises InputError for other train images than those of the resumed training, and for none to calibrate on."""
    if checkpoint is not None:
        refuse_other_images(checkpoint, initial, data.splits.train, data.root, cfg.ckpt_path)
    if cfg.calibrate and not can_refit(one_pass=data.one_pass, init_from=cfg.init_from, train=data.splits.train):
        _refuse_none_held_out(data.splits.validation, initial)


def can_refit(*, one_pass: bool, init_from: str | None, train: Iterable[Record]) -> bool:
    """Whether a method is fitted in seconds, and to these train images alone."""
    return one_pass and init_from is None and 2 <= sum(not record.tile for record in train) <= MOST_REFITTED


def refuse_other_images(
    checkpoint: dict[str, Any], initial: dict[str, Any] | None, records: Sequence[Record], root: Path, path: str
) -> None:
    """Raises InputError where `records` are not the train images of the run whose `checkpoint`, at `path`, is resumed.

    Their order counts too, since the images of a step follow from it. `initial` is the checkpoint that this run started
    from, if any. A checkpoint of an earlier version has numbers in place of names, those of `initial` among them; one
    of a still earlier version has nothing to compare.
    """
    current = image_names(records, root)
    if "images" in checkpoint:
        saved = unpack_names(checkpoint["images"])
        added, missing = (list(difference.elements()) for difference in _differences(current, saved))
        if not added and not missing and current != saved:
            raise InputError(
                f"ckpt_path={path}: was trained on the same images in another order, which decides the images of each "
                f"step; list them as before, or {_new_training(path)}"
            )
        _refuse(path, added, len(missing), missing)
    elif "trained" in checkpoint:
        numbers, known = image_groups(records).tolist(), set(checkpoint["trained"].tolist())
        first = _of_first_tiles(records, numbers)
        added = [name for name, number in zip(current, first, strict=True) if number not in known]
        others = set((initial or {}).get("trained", torch.zeros(0)).tolist())
        missing_count = len(known - set(numbers) - others)
        if len(added) < len(current):  # none known: the numbers depend on the data set's folder, which was renamed
            _refuse(path, added, missing_count, [])


def _refuse_none_held_out(held_out: Iterable[Record], initial: dict[str, Any] | None) -> None:
    """Raises InputError where no image is held out that `initial`, the checkpoint started from, was not trained on."""
    known = set((initial or {}).get("trained", torch.zeros(0)).tolist())
    if known.issuperset(image_groups(held_out).tolist()):
        raise InputError("calibrate=true: no good images are held out to set the boundary on; set data.held_out=0.1")


def _differences(current: Sequence[str], saved: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    return Counter(current) - Counter(saved), Counter(saved) - Counter(current)


def _of_first_tiles(records: Sequence[Record], numbers: Sequence[int]) -> list[int]:
    return [number for record, number in zip(records, numbers, strict=True) if not record.tile]


def _refuse(path: str, added: Sequence[str], missing_count: int, missing: Sequence[str]) -> None:
    """Raises InputError for `added` and missing images; the names of the missing ones may be unknown."""
    changes = []
    if added:
        changes.append(f"{len(added)} {'image is' if len(added) == 1 else 'images are'} new{_examples(added)}")
    if missing_count:
        verb = "is" if missing_count == 1 else "are"
        changes.append(f"{missing_count} that it was trained on {verb} gone{_examples(missing)}")
    if changes:
        raise InputError(
            f"ckpt_path={path}: cannot be resumed on other train images: {' and '.join(changes)}; restore those it "
            f"was trained on, or {_new_training(path)}"
        )


def _examples(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:_EXAMPLES])}{', ...' if len(names) > _EXAMPLES else ''})"


def _new_training(path: str) -> str:
    return f"start another training from its weights by init_from={path} and an output_dir of its own"
