"""MPDD: metal parts in the layout of MVTec AD, listed by `list_mvtec`."""

from pathlib import Path

from uniad_lightning.data.layouts.mvtec import categories_of_layout, list_mvtec
from uniad_lightning.data.layouts.published import Images, Published


def recognise(root: Path) -> bool:
    """Whether `root` has folders in the layout of MVTec AD, all with names of MPDD's categories."""
    categories = categories_of_layout(root)
    return bool(categories) and MPDD.images.keys() >= {*categories}


MPDD = Published(
    title="MPDD",
    layout="""\
<category>/train/good/*.png
<category>/test/<defect>/*.png (good among the defects)
<category>/ground_truth/<defect>/<stem>_mask.png""",
    licence="none stated on its page; anomalib states CC BY-NC-SA 4.0: no commercial use; ask its authors",
    source="https://github.com/stepanje/MPDD",
    reference="Jezek, Jonak, Burget, Dvorak, Skotak: Deep learning-based defect detection of metal parts: evaluating "
    "current methods in complex conditions, ICUMT 2021",
    images={
        "bracket_black": Images(289, 0, 32, 47),
        "bracket_brown": Images(185, 0, 26, 51),
        "bracket_white": Images(110, 0, 30, 30),
        "connector": Images(128, 0, 30, 14),
        "metal_plate": Images(54, 0, 26, 71),
        "tubes": Images(122, 0, 32, 69),
    },
    listing=list_mvtec,
    recognise=recognise,
)
