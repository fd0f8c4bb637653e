"""`uniad table`: runs in the paper's layout. Folders are written as a training writes them, some by real trainings."""

import csv
import itertools
import json
import re
from pkgutil import resolve_name

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image

from support.settings import SMALL
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.command_line.commands import TABLES
from uniad_lightning.command_line.table_command import show_table
from uniad_lightning.data.layouts.cifar10 import CIFAR10, CLASSES
from uniad_lightning.data.layouts.mvtec import MVTEC
from uniad_lightning.errors import InputError
from uniad_lightning.metrics.anomaly_metrics import Evaluation, Row
from uniad_lightning.paper import numbers as paper
from uniad_lightning.paper import rows
from uniad_lightning.paper.curves import read_curve
from uniad_lightning.paper.gathering import settings_of
from uniad_lightning.paper.layouts import LAYOUTS
from uniad_lightning.paper.rows import OfSystem
from uniad_lightning.results.run_folder import COLUMNS, CONFIG, TEST_SCORES, write_evaluation
from uniad_lightning.training.method import leave_out_unused
from uniad_lightning.training.resume import plain

IMAGES = {name: row.test_good + row.test_defective for name, row in MVTEC.images.items()}
PRODUCTS = {"gear": 9, "wood": 7}


def composed(*words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(words))


@pytest.fixture(scope="module")
def base():
    return composed("experiment=mvtec", "data.root=mvtec_ad", "output_dir=run")


def evaluation(images, image_auroc, pixel_auroc, pooled):
    """A result in which category k has the given AUROCs plus k thousandths, with their mean."""
    names = sorted(images)
    rows = {
        name: Row(images[name], image_auroc + k / 1000, 0.5, 0.5, pixel_auroc + k / 1000, 0.5, 0.5, 0.5)
        for k, name in enumerate(names)
    }
    mean = Row(sum(images.values()), *(float(np.mean([getattr(r, c) for r in rows.values()])) for c in COLUMNS))
    return Evaluation(rows, mean, {}, mean._replace(image_auroc=pooled), (), {})


@pytest.fixture
def write_run(base, tmp_path):
    """Write a run folder with the settings of `config`, the paper's, but for `changes`; unfinished without `det`."""

    def write(name, changes=None, *, det=None, loc=0.9, pooled=0.5, seed=0, images=IMAGES, config=base):
        folder = tmp_path / "runs" / name
        cfg = config.copy()
        cfg.seed, cfg.output_dir = seed, str(folder)
        for key, value in (changes or {}).items():
            OmegaConf.update(cfg, key, value, force_add=True)
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(OmegaConf.to_yaml(cfg, resolve=True))
        if det is not None:
            write_evaluation(folder, evaluation(images, det, loc, pooled), facts={})
        return folder

    return write


@pytest.fixture
def fill(tmp_path, capsys):
    """Fill a table from all runs that were written: (complete, printed, rows of the CSV by their labels)."""

    def call(name, *places):
        complete = show_table([name, *map(str, places or [tmp_path / "runs"]), f"out={tmp_path / 'out'}"])
        heads = [head.replace(" ", "_") for head in LAYOUTS[name].heads]
        with (tmp_path / "out" / f"{name}.csv").open() as file:
            rows = {tuple(row[head] for head in heads): row for row in csv.DictReader(file)}
        if len(heads) == 1:
            rows = {label: row for (label,), row in rows.items()}
        return complete, capsys.readouterr().out, rows

    return call


# The paper's numbers.


@pytest.mark.parametrize(("table", "others"), [
    (paper.TABLE_1, paper.TABLE_1_OTHERS), (paper.TABLE_2, paper.TABLE_2_OTHERS), (paper.TABLE_3, paper.TABLE_3_OTHERS)
])  # fmt: skip
def test_printed_means_are_those_of_the_printed_columns(table, others):
    assert list(table) == list(others)
    columns = {name: np.hstack([row[0], row[2:], *others[name]]) for name, row in table.items()}
    printed = columns.pop("mean")
    off = np.abs(np.mean(list(columns.values()), axis=0) - printed)
    assert (off < 0.1).sum() >= len(off) - 1  # Table 2 prints 92 for FCDD, whose separate numbers are whole
    assert off.max() < 0.5


def test_one_setting_has_one_number_in_all_tables():
    default, vanilla = paper.Auroc(96.5, 96.8), paper.Auroc(87.6, 92.8)
    assert (paper.TABLE_1["mean"].unified, paper.TABLE_2["mean"].unified) == default
    for table, row in [
        (paper.TABLE_A2, "layer_wise_mask_jitter"), (paper.TABLE_5B, ("uniad", 4, 4)), (paper.TABLE_5C, 7),
        (paper.TABLE_5D, (True, True, True)), (paper.TABLE_5E, 20), (paper.TABLE_5F, 1), (paper.TABLE_A3, ("a", True)),
        (paper.TABLE_A4, "mse"), (paper.TABLE_A5, False), (paper.TABLE_A6, "efficientnet_b4"),
    ]:  # fmt: skip
        assert table[row] == default
    assert paper.TABLE_4["layer_wise_mask_jitter"][0] == default
    assert paper.TABLE_A2["one_query"] == paper.TABLE_4["one_query"][0] == vanilla
    assert paper.TABLE_5B["transformer", 4, 4] == paper.TABLE_A3["one_query", False] == vanilla


def test_a_table_says_which_differences_are_noise(write_run, fill, tmp_path):
    hard = np.random.default_rng(0).normal(size=60)  # for every run
    for size, shift in ((5, 1.5), (7, 1.5), (9, -1.5)):
        folder = write_run(f"size{size}", {"model.neighbor_size": size}, det=0.9)
        scores = hard + np.random.default_rng(size).normal(np.repeat([0, shift], 30), 0.2)
        kinds = np.repeat(["good", "defective"], 30)
        lines = [f"{kind}/{k}.png,gear,{kind},{scores[k]}" for k, kind in enumerate(kinds)]
        (folder / TEST_SCORES).write_text("\n".join(["path,category,label,score", *lines]) + "\n")
    _, printed, _ = fill("5c")
    for text in (printed, *((tmp_path / "out" / f"5c.{suffix}").read_text() for suffix in ("md", "tex"))):
        within, beyond = (
            next(line for line in text.splitlines() if f"{side} the noise of the 60 test images" in line)
            for side in ("within", "beyond")
        )
        assert re.search(r"bootstrap\): [57] [+-]\d\.\d\d \(-\d\.\d\d to \+\d\.\d\d\)$", within)
        assert re.search(r"bootstrap\): 9 -\d\d\.\d\d \(-\d\d\.\d\d to -\d\d\.\d\d\)$", beyond)


# Each table against the sweeps of `conf/`.


def swept(words):
    """The words of every job of a table's command, one category standing for all."""
    if words.startswith("-m "):
        key, _, values = words[3:].partition("=")
        return [[f"{key}={value}"] for value in values.split(",")]
    sweep, *fixed = words.split()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        params = compose("train", [sweep], return_hydra_config=True).hydra.sweeper.params
    given = {word.partition("=")[0] for word in fixed}
    options = []
    for key, values in params.items():
        listed = yaml.load(f"[{values}]", yaml.BaseLoader) if key not in given else []
        if key == "data.categories":
            listed = listed[:2]
        plainly = [str(value).replace(" ", "").replace("'", "") for value in listed]
        options.append([f"{key}={value}" for value in plainly] or [""])
    return [[sweep, *fixed, *filter(None, job)] for job in itertools.product(*options)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_runs_of_its_command_are_all_rows_of_a_table(name):
    layout = LAYOUTS[name]
    jobs = [job for overrides in layout.overrides for job in swept(overrides)]
    configs = [composed(*layout.experiment.split(), *job, "output_dir=run") for job in jobs]
    for cfg in configs:
        leave_out_unused(cfg)
    rows = {layout.row_of(settings_of(plain(cfg))) for cfg in configs}
    expected = {"unified", "separate"} if name in ("1", "2") else set(layout.lines) - {"mean"}
    others = set(layout.others) - {"FCDD+OE"} if name in ("1", "2", "3") else set()  # it needs other images
    expected |= {OfSystem(system, row) for system in others for row in expected}
    assert rows - {None} == expected
    if name != "5a":  # its sweep has the rows of Table A2
        assert None not in rows


def test_the_vanilla_transformer_is_one_query_without_mask_and_jitter():
    both = [composed("data.root=x", "output_dir=run", word) for word in ("model=transformer", "ablation=one_query")]
    for name in ("5a", "A2", "A3", "4", "5b", "fig2"):
        rows = {LAYOUTS[name].row_of(settings_of(plain(cfg))) for cfg in both}
        assert len(rows) == 1
        assert None not in rows


# Filling.


def test_mean_deviation_and_difference_over_seeds(write_run, fill):
    found = {1: [0.8, 0.84, 0.85], 7: [0.95]}
    for size, numbers in found.items():
        for seed, number in enumerate(numbers):
            write_run(f"{size}/{seed}", {"model.neighbor_size": size}, det=number, seed=seed)
    complete, printed, lines = fill("5c")
    assert complete
    assert list(lines) == ["1", "5", "7", "9"]
    shift = np.mean(np.arange(len(IMAGES))) / 10  # of `evaluation`
    for size, numbers in found.items():
        line, percent = lines[str(size)], 100 * np.array(numbers) + shift
        difference = percent.mean() - paper.TABLE_5C[size].detection
        assert float(line["detection_mean"]) == pytest.approx(percent.mean(), abs=1e-3)
        assert float(line["detection_difference"]) == pytest.approx(difference, abs=1e-3)
        assert float(line["detection_paper"]) == paper.TABLE_5C[size].detection
        assert line["detection_n"] == str(len(numbers))
        assert f"{difference:+.2f}" in printed
    assert float(lines["1"]["detection_deviation"]) == pytest.approx(100 * np.std(found[1], ddof=1), abs=1e-3)
    assert lines["7"]["detection_deviation"] == lines["5"]["detection_mean"] == lines["5"]["detection_n"] == ""
    assert "not the paper's" not in printed
    assert "the data are" not in printed


def test_files_have_the_layout(write_run, fill, tmp_path):
    for size in (1, 7):
        write_run(f"{size}", {"model.neighbor_size": size}, det=0.8)
    _, printed, lines = fill("5c")
    out = tmp_path / "out"
    table = [line for line in (out / "5c.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(lines)
    assert len({line.count("|") for line in table}) == 1
    tex = (out / "5c.tex").read_text().splitlines()
    assert [line.count("&") for line in tex if line.endswith(r"\\")] == [2] + [8] * (1 + len(lines))
    assert tex[-1] == r"\end{tabular}"
    with Image.open(out / "5c.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 5
    assert {str(path) for path in out.iterdir()} <= set(printed.split())


def test_categories_in_both_cases_beside_all_methods(write_run, fill, tmp_path):
    write_run("unified", det=0.9)
    for seed, left_out in ((0, None), (1, "zipper")):
        for name in IMAGES.keys() - {left_out}:
            alone, images = {"data.categories": [name]}, {name: IMAGES[name]}
            write_run(f"{name}/{seed}", alone, det=0.7 + seed / 10, seed=seed, images=images)
    _, printed, lines = fill("1")
    assert list(lines) == list(paper.TABLE_1)
    metal_nut = lines["metal_nut"]
    assert float(metal_nut["unified_mean"]) == pytest.approx(90 + sorted(IMAGES).index("metal_nut") / 10, abs=1e-3)
    assert [float(metal_nut[f"separate_{part}"]) for part in ("mean", "n", "paper")] == pytest.approx([75, 2, 99.0])
    assert metal_nut["unified_paper_deviation"] == "0.09"
    assert lines["zipper"]["separate_n"] == lines["mean"]["separate_n"] == "1"
    assert "separate case, seed 1: no run of zipper" in printed
    assert lines["bottle"]["CutPaste"] == "67.9 / 98.2"
    assert r"metal\_nut" in (tmp_path / "out" / "1.tex").read_text()


# model=... by name in the tables
SYSTEM = {"PSVDD": "patch_svdd", "MKD": "mkd", "VT-ADL": "vt_adl", "FCDD": "fcdd", "PaDiM": "padim"}


def of_system(name):
    """The settings of a run of the system, as a training leaves them."""
    cfg = composed("experiment=mvtec", "data.root=mvtec_ad", "output_dir=run", f"model={SYSTEM[name]}")
    leave_out_unused(cfg)
    return cfg


def test_every_system_of_the_tables_has_its_column_or_row():
    targets = {}
    for path in (conf_dir() / "model").glob("*.yaml"):
        target = yaml.safe_load(path.read_text())["_target_"]
        targets[path.stem] = getattr(resolve_name(target), "paper_name", None)
        settings = {"model._target_": target}
        found = rows.system(settings)
        assert (found or "").lower() == (targets[path.stem] or "").lower(), path  # UniAD prints AnoVit
    named = {rows.SYSTEMS[name] for name in rows.SYSTEMS} | {"FCDD+OE"}
    printed = {*paper.TABLE_1_METHODS, *paper.TABLE_2_METHODS, *paper.TABLE_3_METHODS}
    assert named == printed | (paper.TABLE_4.keys() - paper.TABLE_A2.keys())
    outliers = {"model._target_": "x.FCDD", "data.defects._target_": "x.OutlierExposure"}
    assert rows.system(outliers) == "FCDD+OE"


@pytest.mark.slow
def test_runs_of_other_systems_stand_beside_their_own_numbers(write_run, fill, tmp_path):
    write_run("ours", det=0.9)
    for name, det in (("PSVDD", 0.7), ("MKD", 0.6)):
        write_run(name, det=det, config=of_system(name))
    write_run("MKD again", det=0.62, seed=1, config=of_system("MKD"))
    for name in IMAGES.keys() - {"zipper"}:
        images = {name: IMAGES[name]}
        write_run(f"alone/{name}", {"data.categories": [name]}, det=0.8, images=images, config=of_system("PSVDD"))
    _, printed, lines = fill("1")
    cable = 100 * sorted(IMAGES).index("cable") / 1000
    expected = {
        "unified_mean": 90 + cable, "unified_paper": 95.2,
        "PSVDD_unified_mean": 70 + cable, "PSVDD_unified_paper": 64.4, "PSVDD_unified_difference": 5.6 + cable,
        "PSVDD_separate_mean": 80, "PSVDD_separate_paper": 90.3,
        "MKD_unified_mean": 61 + cable, "MKD_unified_n": 2, "MKD_unified_paper": 78.2,
    }  # fmt: skip
    assert {key: float(lines["cable"][key]) for key in expected} == pytest.approx(expected, abs=1e-3)
    assert lines["mean"]["PSVDD_separate_mean"] == ""
    assert "PSVDD, separate case, seed 0: no run of zipper" in printed
    assert not [head for head in lines["cable"] if head.startswith(("MKD_separate", "DRAEM_"))]
    assert lines["cable"]["DRAEM"] == "57.8 / 91.8"
    assert "settings that are not the paper's" not in printed
    assert (tmp_path / "out" / "1.png").stat().st_size > 1000


def test_a_table_of_another_system_alone_is_filled_too(write_run, fill):
    write_run("only", det=0.7, config=of_system("PSVDD"))
    _, printed, lines = fill("2")
    assert list(lines) == list(paper.TABLE_2)
    assert lines["mean"]["unified_mean"] == ""
    assert lines["mean"]["PSVDD_unified_paper"] == "85.6"
    assert float(lines["mean"]["PSVDD_unified_n"]) == 1
    write_run("other", det=0.7, config=of_system("VT-ADL"))
    assert "other: is in no row of the table" in fill("2")[1]


def test_systems_that_do_not_fit_beside_each_other_stand_below(write_run, fill, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    write_run("ours", det=0.9)
    for name in ("MKD", "PaDiM", "PSVDD"):
        write_run(name, det=0.7, config=of_system(name))
    printed = fill("1")[1]
    heads = [line for line in printed.splitlines() if "category" in line]
    assert len(heads) > 1
    assert all("unified" in line or "\n" in line for line in printed.splitlines() if "┃" in line and "MKD" in line)
    assert max(len(line) for line in printed.splitlines() if line[:1] in "┏┃│└") <= 80
    for name in ("MKD", "PaDiM", "PSVDD"):
        assert sum(f"{name} unified" in line for line in printed.splitlines()) == 1
    assert printed.count("│ screw ") == len(heads)


def test_table_3_has_the_mean_of_each_system_over_its_splits(write_run, fill):
    images = {name: row.test_good for name, row in CIFAR10.images.items()}
    for name, words in (("MKD", []), ("FCDD", []), ("FCDD", ["data/defects=outliers", "data.defects.folder=x"])):
        config = composed("experiment=cifar10", "data.root=x", "output_dir=run", f"model={SYSTEM[name]}", *words)
        for k, classes in enumerate(("01234", "56789", "02468", "13579")):
            pooled = 0.6 + k / 10 + len(words) / 100
            given = {"data.normal_classes": classes}
            write_run(f"{name}{len(words)}/{k}", given, det=0.1, pooled=pooled, images=images, config=config)
    lines = fill("3")[2]
    found = {name: lines["mean"][f"{name}_pooled_detection_mean"] for name in ("MKD", "FCDD", "FCDD+OE")}
    assert {name: float(text) for name, text in found.items()} == pytest.approx({"MKD": 75, "FCDD": 75, "FCDD+OE": 77})
    assert lines["56789"]["FCDD+OE_pooled_detection_paper"] == "73.7"


def test_table_4_has_a_row_of_another_system_and_tables_of_parts_have_none(write_run, fill):
    write_run("ours", det=0.9)
    write_run("theirs", det=0.6, config=of_system("VT-ADL"))
    lines = fill("4")[2]
    assert float(lines["VT-ADL", "unified"]["detection_n"]) == 1
    assert lines["VT-ADL", "unified"]["detection_paper"] == "55.4"
    assert "theirs: is in no row of the table" in fill("A2")[1]


def test_systems_are_compared_on_the_same_data(write_run, fill):
    write_run("ours", det=0.9)
    write_run("theirs", {"data.limit": 20}, det=0.6, config=of_system("MKD"))
    with pytest.raises(InputError, match=r"data\.limit is"):
        fill("1")


def test_other_products_have_only_their_mean_beside_the_paper(write_run, fill):
    write_run("other", det=0.9, images=PRODUCTS)
    _, printed, lines = fill("2")
    assert list(lines) == ["gear", "wood", "mean"]
    assert lines["wood"]["unified_paper"] == lines["wood"]["MKD"] == ""
    assert lines["mean"]["unified_paper"] == "96.8"
    assert "gear, wood, not MVTec AD" in printed


def test_what_is_not_as_in_the_paper_is_told(write_run, fill):
    changes = {"data.limit": 10, "callbacks.best": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}}
    write_run("limited", changes, det=0.9, images={**IMAGES, "pill": 20})
    _, printed, _ = fill("2")
    assert "pill 20 (167)" in printed
    assert "data.limit=10 (None)" in printed
    assert "optimistic" in printed


def test_the_separate_case_is_averaged_in_table_4_alone(write_run, fill):
    for name, det in (("gear", 0.6), ("wood", 0.8)):
        write_run(name, {"data.categories": [name]}, det=det, images={name: PRODUCTS[name]})
    write_run("unified", det=0.9, images=PRODUCTS)
    lines = fill("4")[2]
    assert float(lines["UniAD", "separate"]["detection_mean"]) == pytest.approx(70)
    assert lines["InTra", "separate"]["localization_paper"] == "96.6"
    with pytest.raises(InputError, match=r"data\.categories is \['gear'\]"):
        fill("A2")


def test_table_3_takes_the_pooled_number_and_means_over_whole_seeds(write_run, fill):
    config = composed("experiment=cifar10", "data.root=cifar", "output_dir=run")
    images = {name: row.test_good for name, row in CIFAR10.images.items()}
    splits = ["01234", 56789, [0, 2, 4, 6, 8], [CLASSES[k] for k in (1, 3, 5, 7, 9)]]  # each as a user may say it
    for seed in (0, 1):
        for k, classes in enumerate(splits[: 4 - seed]):
            given = {"data.normal_classes": classes}
            write_run(f"{k}/{seed}", given, det=0.1, pooled=0.6 + k / 10, seed=seed, images=images, config=config)
    _, printed, lines = fill("3")
    means = {name: float(row["pooled_detection_mean"]) for name, row in lines.items()}
    assert means == pytest.approx({"01234": 60, "56789": 70, "02468": 80, "13579": 90, "mean": 75})
    assert [row["pooled_detection_n"] for row in lines.values()] == ["2", "2", "2", "1", "1"]
    assert "not the paper's" not in printed
    assert "the data are" not in printed


def test_unfinished_failed_and_other_runs_are_named(write_run, fill, tmp_path):
    write_run("good", det=0.9)
    write_run("cut_short", seed=1)
    write_run("three", {"model.neighbor_size": 3}, det=0.9)
    (tmp_path / "runs" / "sweep" / "failed").mkdir(parents=True)
    evaluated = write_run("evaluated", det=0.9)
    (evaluated / CONFIG).write_text("ckpt_path: last.ckpt\n")
    complete, printed, lines = fill("5c")
    assert not complete
    reasons = dict(line.split(": ", 2)[1:] for line in printed.splitlines() if line.startswith("left out: "))
    said = {folder.rpartition("runs/")[2]: reason for folder, reason in reasons.items()}
    assert said == {
        "cut_short": "is unfinished: it has no metrics.json",
        "sweep/failed": "failed before it started: the folder is empty",
        "three": "is in no row of the table: model.neighbor_size=3",
        "evaluated": "is not a training: its configuration has no model",
    }
    assert [lines[size]["detection_n"] for size in ("5", "7")] == ["", "1"]


def test_a_run_given_twice_counts_once(write_run, fill, tmp_path):
    folder = write_run("one", det=0.9)
    assert fill("5c", folder, tmp_path / "runs")[2]["7"]["detection_n"] == "1"


# Refusals.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.limit": 5}, ["data.limit is None in", "and 5 in"]),
        ({"optimizer.lr": 0.5}, ["optimizer.lr is 0.0001 in", "and 0.5 in"]),
        ({"backbone.weights": "random"}, ["backbone.weights is trained in", "and random in"]),
        (
            {"model.masked": [True, False, False]},
            ["model.masked is [True, True, True] in", "and [True, False, False] in"],
        ),
        ({"callbacks.best": {"_target_": "some.Checkpoint"}}, ["callbacks.best._target_ is None in"]),
    ],
)
def test_other_settings_are_refused_by_name(write_run, fill, changes, said):
    folders = [write_run("a", det=0.9), write_run("b", {"model.neighbor_size": 5, **changes}, det=0.9)]
    with pytest.raises(InputError) as refused:
        fill("5c")
    for part in (*said, *map(str, folders)):
        assert part in str(refused.value)


def test_what_cannot_change_a_result_may_differ(write_run, fill):
    write_run("a", det=0.9)
    free = {"data.root": "elsewhere", "trainer.accelerator": "cpu", "data.num_workers": 0, "logger": None}
    write_run("b", free, det=0.8, seed=1)
    assert fill("5c")[2]["7"]["detection_n"] == "2"


def test_runs_of_one_row_that_differ_in_what_the_table_varies_are_refused(write_run, fill):
    write_run("a", det=0.9)
    write_run("b", {"backbone.levels": [1, 2]}, det=0.8, seed=1)  # Table A6 varies levels with the backbone
    with pytest.raises(InputError, match=r"backbone\.levels"):
        fill("A6")


@pytest.mark.parametrize("images", [{**PRODUCTS, "gear": 8}, {**PRODUCTS, "tile": 3}])
def test_other_test_images_are_refused(write_run, fill, images):
    folders = [write_run("a", det=0.9, images=PRODUCTS), write_run("b", det=0.9, seed=1, images=images)]
    with pytest.raises(InputError) as refused:
        fill("5c")
    assert all(str(folder) in str(refused.value) for folder in folders)


def test_one_seed_twice_is_refused(write_run, fill):
    write_run("a", det=0.9)
    write_run("b", det=0.8)
    with pytest.raises(InputError, match="same seed=0"):
        fill("5c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fig22"], "no such table. Did you mean 'fig2'?"),
        (["5c"], "sweep=neighbor_size"),
        (["5c", "nowhere"], "nowhere: no such folder"),
        (["5c", "a", "out=x", "out=y"], "expected uniad table 5c RUNS"),
    ],
)
def test_a_wrong_line_is_explained(words, said):
    with pytest.raises(InputError) as refused:
        show_table(words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_run_is_named(write_run, fill):
    folder = write_run("a", det=0.9)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: not JSON"):
        fill("5c")


def test_without_words_all_tables_are_listed(capsys):
    assert show_table([])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed if not line.startswith(" ")] == list(TABLES)
    assert sum("uniad train experiment=" in line for line in printed) == sum(len(x.overrides) for x in LAYOUTS.values())


# Fig. 2, and real trainings.


def test_curves_of_a_resumed_run_are_put_together(tmp_path):
    head = "epoch,mean/image_auroc,mean/pixel_auroc,train/loss_epoch\n"
    for version, text in {
        2: "0,0.5,,\n0,,,3.0\n1,0.6,0.7,\n1,,,2.0\n",
        10: "1,0.65,0.75,\n1,,,1.5\n2,0.65,nan,\n",
    }.items():
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(head + text)
    curve = read_curve(tmp_path, epochs=2)
    assert curve.loss == {1: 3.0, 2: 1.5}
    assert curve.detection == {1: 50.0, 2: 65.0}  # the evaluation after the training is of its last epoch
    assert curve.localization == {2: 75.0}


def test_fig_4_has_the_mean_curve_of_the_separate_case(write_run, fill, tmp_path):
    mlp = composed("experiment=mvtec", "data.root=mvtec_ad", "output_dir=run", "model=mlp", "trainer.max_epochs=2")
    head = "epoch,mean/image_auroc,mean/pixel_auroc,train/loss_epoch\n"

    def write_curve(name, log, **of):
        folder = write_run(name, det=0.9, config=mlp, **of)
        (folder / "logs/version_0").mkdir(parents=True)
        (folder / "logs/version_0/metrics.csv").write_text(head + log)

    write_curve("unified", "0,0.8,0.7,3.0\n1,0.6,0.5,1.0\n", images=PRODUCTS)
    for seed in (0, 1):
        for name, log in {"gear": "0,0.5,0.6,2.0\n1,0.9,0.8,1.0\n", "wood": "0,0.9,0.8,4.0\n1,0.7,0.6,2.0\n"}.items():
            images = {name: PRODUCTS[name]}
            write_curve(f"{name}{seed}", log, changes={"data.categories": [name]}, images=images, seed=seed)
    (tmp_path / "runs/wood1/logs/version_0/metrics.csv").unlink()
    _, printed, lines = fill("fig4")
    assert [float(lines["unified"][f"detection_{moment}_mean"]) for moment in ("last", "best")] == [60, 80]
    assert [float(lines["separate"][f"detection_{moment}_mean"]) for moment in ("last", "best")] == [80, 80]
    assert lines["separate"]["localization_last_mean"] == "70.0000"
    assert lines["separate"]["localization_last_n"] == "1"  # the other seed has no curve of wood
    assert "wood1: has no logs" in printed
    assert "model" not in printed.split("settings that are not the paper's")[1]  # the MLP is the figure's own


@pytest.mark.slow
def test_real_trainings_end_in_tables(tree, uniad, tmp_path, capfd):
    runs = tmp_path / "runs"
    words = [*SMALL, f"data.root={tree}", "validate_every=1", f"output_dir={runs}"]
    status, _, err = uniad("train", *words, "-m", "model.neighbor_size=1,7", "seed=0")
    assert status == 0, err
    assert show_table(["5c", str(runs), f"out={tmp_path}"])
    with (tmp_path / "5c.csv").open() as file:
        lines = {row["neighbor_size"]: row for row in csv.DictReader(file)}
    for folder in (path.parent for path in runs.rglob("metrics.json")):
        mean = json.loads((folder / "metrics.json").read_text())["mean"]
        size = yaml.safe_load((folder / CONFIG).read_text())["model"]["neighbor_size"]
        for head, name in (("detection", "image_auroc"), ("localization", "pixel_auroc")):
            assert float(lines[str(size)][f"{head}_mean"]) == pytest.approx(100 * mean[name], abs=1e-3)
    assert show_table(["fig2", str(next(runs.rglob("metrics.json")).parent), f"out={tmp_path}"])
    with (tmp_path / "fig2.csv").open() as file:
        last = {row["network"]: row for row in csv.DictReader(file)}["uniad"]
    assert float(last["detection_best_mean"]) >= float(last["detection_last_mean"])
    for name in ("5c", "fig2"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("RGB")).std() > 5
    assert "only bottle, cable of MVTec AD" in capfd.readouterr().out
