"""What a check finds: a file, what is wrong with it, how much that matters and what to do."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.records import Packed

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        severity: `error`: a training stops there, or its results are wrong; `warning`: probably a mistake; `note`: may
            be intended.
        remedy: what to do.
    """

    severity: str
    remedy: str


_ONE_OF_TWO = "keep it in one of the two"
KINDS = {
    "listing refused": Kind(ERROR, "do what the message says: a training would stop with it"),
    "unreadable": Kind(ERROR, "replace or delete it; data.on_error=skip trains without such images"),
    "truncated or damaged": Kind(ERROR, "copy it again or delete it; data.on_error=skip trains without such images"),
    "mask of another size": Kind(ERROR, "save the mask at the size of the upright image"),
    "defect in the training": Kind(ERROR, "delete the good one, or correct the label of the other"),
    "good and defective": Kind(ERROR, "correct the label of one, and delete the other"),
    "copy in train and test": Kind(ERROR, f"{_ONE_OF_TWO}: results on it are not those of new images"),
    "empty mask": Kind(WARNING, "mark the defect, or move the image to the good ones"),
    "full mask": Kind(WARNING, "what is not black is defective: mark the defect alone"),
    "mask of more than half": Kind(WARNING, "if it is inverted, invert it: what is not black is defective"),
    "values of a mask": Kind(WARNING, "save it as PNG with two values: all that is not black counts as defective"),
    "mask of a good image": Kind(WARNING, "move the image to the defective ones, or delete the mask"),
    "mask of no image": Kind(WARNING, "name it after its image, or delete it"),
    "copy in two products": Kind(WARNING, _ONE_OF_TWO),
    "near copy in train and test": Kind(WARNING, f"{_ONE_OF_TWO}; keep series of photographs together"),
    "looks like another product": Kind(WARNING, "move it to the other product if that is right"),
    "constant image": Kind(WARNING, "delete it: nothing can be seen in it"),
    "few train images": Kind(WARNING, "give the product more good images"),
    "unequal products": Kind(WARNING, "give the smaller one more images, or set data.sampling=balanced"),
    "train and test in other formats": Kind(WARNING, "save both in one format: a detector may go by the compression"),
    "names alike": Kind(WARNING, "rename one: some systems cannot tell them apart"),
    "broken link": Kind(WARNING, "correct or delete the link"),
    "link to a folder above": Kind(WARNING, "delete the link; it is not followed"),
    "image not used": Kind(WARNING, "move it into a folder of the layout, or out of data.root"),
    "copy": Kind(NOTE, "delete one: it teaches nothing new"),
    "near copy": Kind(NOTE, "keep series of photographs together in train or in test"),
    "nothing to test": Kind(NOTE, "add such test images for an image AUROC of the product"),
    "size only in the test": Kind(NOTE, "crop or photograph as for the training"),
    "suffix passed over": Kind(NOTE, "if these are images, save them as PNG"),
    "left by a system": Kind(NOTE, "nothing: it is left out"),
}


class Finding(NamedTuple):
    """One finding.

    Attributes:
        kind: one of `KINDS`.
        file: the file or folder it is about.
        found: what was found there.
        other: the file that it is compared with; None without one.
    """

    kind: str
    file: Path | Packed
    found: str
    other: Path | Packed | None = None

    @property
    def severity(self) -> str:
        """One of `SEVERITIES`."""
        return KINDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """What to do."""
        return KINDS[self.kind].remedy


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings by severity, kind in the order of `KINDS`, and file."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda found: (places[found.kind], str(found.file), str(found.other)))
