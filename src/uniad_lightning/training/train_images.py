"""The train images of a run by name, as a checkpoint keeps them, and whether a resumed run still has the same."""

import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniad_lightning.data.records import Packed, Record
from uniad_lightning.data.selection import lots
from uniad_lightning.errors import InputError

_EXAMPLES = 3  # images that are named in a message


def image_names(records: Iterable[Record], root: Path) -> list[str]:
    """The name of each image below the `root` of its data set, its category in it; the same on any machine."""
    return [_name(record, root) for record in records if not record.tile]  # a picture's first tile, where it has some


def _name(record: Record, root: Path) -> str:
    file, place = record.image if isinstance(record.image, Packed) else (record.image, None)
    # What lies elsewhere, of a list or of several data sets, goes by its last folders, as in `selection.lots`.
    parts = file.relative_to(root).parts if file.is_relative_to(root) else file.parts[-3:]
    name = "/".join(parts if record.category in parts else [record.category, *parts]) + (
        "" if place is None else f"#{place}"
    )
    return unicodedata.normalize("NFC", name)  # a Mac decomposes what is one character elsewhere


def pack_names(names: Iterable[str]) -> Tensor:
    """Names as a tensor (n,) uint8, compressed."""
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return torch.frombuffer(bytearray(zlib.compress(text)), dtype=torch.uint8)


def unpack_names(packed: Tensor) -> list[str]:
    """The opposite of `pack_names`."""
    return zlib.decompress(packed.numpy().tobytes()).decode("utf-8", "surrogateescape").split("\0")


def refuse_other_images(
    checkpoint: dict[str, Any], before: dict[str, Any] | None, records: Sequence[Record], root: Path, path: str
) -> None:
    """Raises InputError where `records` are not the train images of the run that `checkpoint`, in `path`, is of.

    Another order counts, since it is what a step takes its images by. `before` is the checkpoint that this run began
    from, if any: one of an earlier version has numbers in place of names, of that one's images and its own together;
    one of a still earlier version has nothing to compare.
    """
    now = image_names(records, root)
    if "images" in checkpoint:
        then = unpack_names(checkpoint["images"])
        come, gone = (list(difference.elements()) for difference in _differences(now, then))
        if not come and not gone and now != then:
            raise InputError(
                f"ckpt_path={path}: was trained on the same images in another order, by which the steps take them; "
                f"list them as before, or {_anew(path)}"
            )
        _refuse(path, come, len(gone), gone)
    elif "trained" in checkpoint:
        numbers, known = lots(records).tolist(), set(checkpoint["trained"].tolist())
        come = [name for name, number in zip(now, _of_pictures(records, numbers), strict=True) if number not in known]
        others = set((before or {}).get("trained", torch.zeros(0)).tolist())
        gone_count = len(known - set(numbers) - others)
        if len(come) < len(now):  # none known: the numbers hold the name of the data set's folder, and it has another
            _refuse(path, come, gone_count, [])


def _differences(now: Sequence[str], then: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    return Counter(now) - Counter(then), Counter(then) - Counter(now)


def _of_pictures(records: Sequence[Record], numbers: Sequence[int]) -> list[int]:
    return [number for record, number in zip(records, numbers, strict=True) if not record.tile]


def _refuse(path: str, come: Sequence[str], gone_count: int, gone: Sequence[str]) -> None:
    changes = []
    if come:
        changes.append(f"{len(come)} {_images(come)} new{_examples(come)}")
    if gone_count:
        changes.append(
            f"{gone_count} that it was trained on {'is' if gone_count == 1 else 'are'} gone{_examples(gone)}"
        )
    if changes:
        raise InputError(
            f"ckpt_path={path}: cannot be resumed on other train images: {' and '.join(changes)}; put back what it was "
            f"trained on, or {_anew(path)}"
        )


def _images(names: Sequence[str]) -> str:
    return "image is" if len(names) == 1 else "images are"


def _examples(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:_EXAMPLES])}{', ...' if len(names) > _EXAMPLES else ''})"


def _anew(path: str) -> str:
    return f"start another training from its weights by init_from={path} and an output_dir of its own"
