"""The paper's tables, and Figs. 2 and 4, by their names in `uniad table`."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from uniad_lightning.data.layouts.cifar10 import CIFAR10
from uniad_lightning.data.layouts.mvtec import MVTEC
from uniad_lightning.paper import numbers as paper
from uniad_lightning.paper import rows
from uniad_lightning.paper.comparison import NONE, Cell, Line
from uniad_lightning.paper.curves import per_curve
from uniad_lightning.paper.filling import MEAN, Layout, Measure, per_category, per_setting, per_split
from uniad_lightning.paper.other_systems import beside_systems
from uniad_lightning.paper.plots import draw_curves, draw_lines

LOC_DET: dict[str, Measure] = {"localization": ("mean", "pixel_auroc"), "detection": ("mean", "image_auroc")}
DET_LOC: dict[str, Measure] = {name: LOC_DET[name] for name in ("detection", "localization")}
LAST_BEST: dict[str, Measure] = {f"{name}, {moment}": (name, moment) for name in LOC_DET for moment in ("last", "best")}
PARTS = ("model._target_", "model.decoder", "model.masked", "model.jitter.prob")
BACKBONE = tuple(f"backbone.{name}" for name in ("name", "levels", "arguments", "mean", "std"))

UNIFIED_OR_SEPARATE = "one model for all categories, or one for each"
QUERIES = {"no_query": "no query", "one_query": "1 query", "layer_wise": "layer-wise"}
OWN = {"one_query": "UniAD (baseline)", "layer_wise_mask_jitter": "UniAD"}
PLACES = {
    (True, False, False): "Enc",
    (True, True, False): "Enc+Dec1",
    (True, False, True): "Enc+Dec2",
    (True, True, True): "All",
}
IN_CASES = {
    (method, case): aurocs[place]
    for method, aurocs in paper.TABLE_4.items()
    for place, case in enumerate(("unified", "separate"))
}


def _lines(
    numbers: Mapping[Any, paper.Auroc], measures: Mapping[str, Measure], label: Callable[..., tuple[str, ...]]
) -> dict[Hashable, Line]:
    return {
        row: Line(label(row), tuple(Cell(None, getattr(auroc, head)) for head in measures))
        for row, auroc in numbers.items()
    }


def _category_lines(
    ours: Mapping[str, paper.Cases], others: Mapping[str, tuple[tuple[float, float], ...]]
) -> dict[Hashable, Line]:
    return {
        name: Line(
            (name,),
            (Cell(None, cases.unified, cases.deviation), Cell(None, cases.separate)),
            others[name],
        )
        for name, cases in ours.items()
    }


def _value(row: object) -> tuple[str, ...]:
    return (str(row),)


def _components(row: str) -> tuple[str, ...]:
    queries = next(name for name in QUERIES if row.startswith(name))
    return QUERIES[queries], *(part if part in row else NONE for part in ("mask", "jitter"))


def _components_layout(number: str, numbers: Mapping[Any, paper.Auroc]) -> Layout:
    return Layout(
        f"Table {number}: query embedding, neighbor mask, feature jitter", ("sweep=components",), PARTS,
        rows.among(numbers, rows.components), ("query embedding", "neighbor mask", "jitter"),
        _lines(numbers, LOC_DET, _components), LOC_DET, per_setting, MVTEC,
    )  # fmt: skip


LAYOUTS: dict[str, Layout] = {
    "1": Layout(
        f"Table 1: detection on MVTec-AD, {UNIFIED_OR_SEPARATE}", ("sweep=table1",),
        (rows.CATEGORIES,), rows.of_systems(paper.TABLE_1_METHODS, rows.case), ("category",),
        _category_lines(paper.TABLE_1, paper.TABLE_1_OTHERS),
        dict.fromkeys(("unified", "separate"), ("mean", "image_auroc")), beside_systems(per_category), MVTEC,
        others=paper.TABLE_1_METHODS,
    ),
    "2": Layout(
        f"Table 2: localization on MVTec-AD, {UNIFIED_OR_SEPARATE}", ("sweep=table2",),
        (rows.CATEGORIES,), rows.of_systems(paper.TABLE_2_METHODS, rows.case), ("category",),
        _category_lines(paper.TABLE_2, paper.TABLE_2_OTHERS),
        dict.fromkeys(("unified", "separate"), ("mean", "pixel_auroc")), beside_systems(per_category), MVTEC,
        others=paper.TABLE_2_METHODS,
    ),
    "3": Layout(
        "Table 3: detection on CIFAR-10, five classes against five",
        ("sweep=table3",),
        ("data.normal_classes",),
        rows.of_systems(paper.TABLE_3_METHODS, rows.among(frozenset(paper.TABLE_3) - {MEAN}, rows.split)),
        ("normal classes",),
        {
            row: Line((row,), (Cell(None, *ours),), tuple((number,) for number in paper.TABLE_3_OTHERS[row]))
            for row, ours in paper.TABLE_3.items()
        },
        {"pooled detection": ("pooled", "image_auroc")}, beside_systems(per_split), CIFAR10,
        others=paper.TABLE_3_METHODS, experiment="experiment=cifar10 data.root=cifar",
    ),
    "4": Layout(
        "Table 4: networks with transformers", ("sweep=table4",), (*PARTS, rows.CATEGORIES),
        rows.among(IN_CASES, rows.components_in_case), ("method", "case"),
        _lines(IN_CASES, LOC_DET, lambda row: (OWN.get(row[0], row[0]), row[1])), LOC_DET, per_setting, MVTEC,
    ),
    "5a": _components_layout("5a", paper.TABLE_5A),
    "5b": Layout(
        "Table 5b: numbers of encoder and decoder layers", ("sweep=layers",),
        (*PARTS, "model.num_encoder_layers", "model.num_decoder_layers"), rows.among(paper.TABLE_5B, rows.layers),
        ("network", "encoder layers", "decoder layers"),
        _lines(paper.TABLE_5B, LOC_DET, lambda row: tuple(map(str, row))), LOC_DET, per_setting, MVTEC,
    ),
    "5c": Layout(
        "Table 5c: size of the neighbor mask", ("sweep=neighbor_size",), ("model.neighbor_size",),
        rows.among(paper.TABLE_5C, rows.setting("model.neighbor_size")), ("neighbor size",),
        _lines(paper.TABLE_5C, LOC_DET, _value), LOC_DET, per_setting, MVTEC, draw_lines,
    ),
    "5d": Layout(
        "Table 5d: where the neighbor mask is", ("sweep=mask_place",), ("model.masked",),
        rows.among(paper.TABLE_5D, rows.setting("model.masked")), ("place",),
        _lines(paper.TABLE_5D, LOC_DET, lambda row: (PLACES[row],)), LOC_DET, per_setting, MVTEC,
    ),
    "5e": Layout(
        "Table 5e: scale of the feature jitter", ("sweep=jitter_scale",), ("model.jitter.scale",),
        rows.among(paper.TABLE_5E, rows.setting("model.jitter.scale")), ("jitter scale",),
        _lines(paper.TABLE_5E, LOC_DET, _value), LOC_DET, per_setting, MVTEC, draw_lines,
    ),
    "5f": Layout(
        "Table 5f: probability of the feature jitter", ("sweep=jitter_prob",), ("model.jitter.prob",),
        rows.among(paper.TABLE_5F, rows.setting("model.jitter.prob")), ("jitter probability",),
        _lines(paper.TABLE_5F, LOC_DET, _value), LOC_DET, per_setting, MVTEC, draw_lines,
    ),
    "A2": _components_layout("A2", paper.TABLE_A2),
    "A3": Layout(
        "Table A3: designs of the decoder (Fig. A1), without and with mask and jitter",
        ("sweep=decoder", "sweep=decoder_masked"), PARTS, rows.among(paper.TABLE_A3, rows.decoder),
        ("decoder", "mask and jitter"),
        _lines(paper.TABLE_A3, DET_LOC, lambda row: (row[0], "mask, jitter" if row[1] else NONE)),
        DET_LOC, per_setting, MVTEC,
    ),
    "A4": Layout(
        "Table A4: loss", ("sweep=loss",), ("loss",), rows.among(paper.TABLE_A4, rows.loss), ("loss",),
        _lines(paper.TABLE_A4, DET_LOC, _value), DET_LOC, per_setting, MVTEC,
    ),
    "A5": Layout(
        "Table A5: backbone trained or frozen", ("sweep=backbone_trainable",), ("backbone.trainable",),
        rows.among(paper.TABLE_A5, rows.setting("backbone.trainable")), ("backbone",),
        _lines(paper.TABLE_A5, DET_LOC, lambda row: ("trained" if row else "frozen",)), DET_LOC, per_setting, MVTEC,
    ),
    "A6": Layout(
        "Table A6: backbone", ("sweep=backbone",), BACKBONE, rows.among(paper.TABLE_A6, rows.backbone), ("backbone",),
        _lines(paper.TABLE_A6, DET_LOC, _value), DET_LOC, per_setting, MVTEC,
    ),
    "fig2": Layout(
        "Fig. 2: loss and AUROC over the epochs of four networks", ("sweep=reconstruction",), PARTS,
        rows.among(("mlp", "cnn", "transformer", "uniad"), rows.network), ("network",),
        {row: Line((row,), (Cell(None),) * 4) for row in ("mlp", "cnn", "transformer", "uniad")},
        LAST_BEST, per_curve, MVTEC, draw_curves,
    ),
    "fig4": Layout(
        f"Fig. 4: loss and AUROC over the epochs of the MLP, {UNIFIED_OR_SEPARATE}",
        ("sweep=unified_or_separate validate_every=10",), (rows.CATEGORIES,),
        rows.among((("mlp", "unified"), ("mlp", "separate")), rows.network_in_case), ("case",),
        {("mlp", case): Line((case,), (Cell(None),) * 4) for case in ("unified", "separate")},
        LAST_BEST, per_curve, MVTEC, draw_curves, experiment="experiment=mvtec data.root=mvtec_ad model=mlp",
    ),
}  # fmt: skip
