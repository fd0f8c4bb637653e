"""Names of files and products may hold anything: it is shown as it stands, steers nothing and ends nothing."""

import ast
import csv
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.paths import SOURCE
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.calibration.report import draw_scores, show_boundaries, show_outcomes, write_report
from uniad_lightning.command_line.job_folders import job_folder
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError, print_stderr, print_stdout, printable
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.metrics.anomaly_metrics import Evaluation, Row
from uniad_lightning.metrics.uncertainty import Bounds
from uniad_lightning.paper.comparison import Cell, Comparison, Line, Number
from uniad_lightning.paper.plots import draw_bars
from uniad_lightning.paper.writing import comma_separated, latex, markdown, show
from uniad_lightning.results.outcomes import Outcome
from uniad_lightning.results.printing import LEFT, print_table
from uniad_lightning.results.run_folder import write_evaluation
from uniad_lightning.results.sheets import draw_sheet
from uniad_lightning.results.tables import show_counts, show_evaluation
from uniad_lightning.sweeps.search_plot import Tried, draw_search
from uniad_lightning.sweeps.table import Job, Setting, draw_sweep, show_sweep

MARKUP = ["[plate]", "part [rev=2]", "[/b]", "[bold red]x", ":cat:", "[link=file:///]y[/link]", r"\[z]"]
STEERING = ["\x1b[31mred", "\x9b2J", "a\rb", "a\nb", "a\u202egnp.exe", "a\u2066b", "a\x07b", "a\u2028b"]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''"]
OTHERS = ["$x^$", "a_b%&#{}~\\", "a|b", "\udcff\udcfe", "gehäuse", "工具", "a,b", '"q"', "-", "y" * 255]
NAMES = [*MARKUP, *STEERING, *FORMULAS, *OTHERS]
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def compact(text: str) -> str:
    """What a terminal shows, without the lines of a table and the folds of its columns."""
    return re.sub(r"[\s\u2500-\u257f]", "", text)


def shown(name: str, out: str) -> bool:
    return compact(printable(name)) in compact(out)


@pytest.mark.parametrize("name", [*MARKUP, *STEERING, "\udcff", "$x^$", "y" * 255])
def test_titles_headings_and_cells_of_a_table_are_shown_as_they_stand(capsys, name):
    print_table(f"title {name}", [(f"heading {name}", LEFT)], [[f"cell {name}"], None, [name]])
    out = capsys.readouterr().out
    for text in (f"title {name}", f"heading {name}", f"cell {name}"):
        assert shown(text.partition("\n")[0], out)
    assert not CONTROL.search(out)


def evaluation(names):
    row = Row(3, *[0.5] * (len(Row._fields) - 1))
    bounds = dict.fromkeys(names, Bounds(0.0, 0.0, 0.0, 0.0))
    rows = {"categories": dict.fromkeys(names, row), "mean": row, "pooled": row}
    more = {"mean_over": {}, "refined": tuple(names[:1]), "error_bounds": bounds, "intervals": {}}
    return Evaluation(**{**dict.fromkeys(Evaluation._fields), **rows, **more})


def calibration(names):
    edge = Boundary(*[1.0] * len(Boundary._fields))
    return Calibration("rate=0.1", edge, dict.fromkeys(names, edge))


def outcomes(names):
    return [Outcome(name, 1.0, 1, 0, 1, 0) for name in names]


def comparison(names):
    cell = Cell(Number(90.0, None, 1), 91.0)
    lines = tuple(Line((name, "-"), (cell,)) for name in names)
    return Comparison("title", ("category", "other"), ("detection",), (), lines, tuple(names))


def jobs(folder, names):
    return [Job(folder / str(i), {"data.categories": name, "seed": "0"}, failed=True) for i, name in enumerate(names)]


def show_splits(names):
    records = tuple(Record(Path(f"{i}.png"), (), name, name, 1) for i, name in enumerate(names))
    show_counts(Splits(tuple(names), (), records))


TABLES = {
    "evaluation": lambda names, _: show_evaluation(evaluation(names)),
    "counts": lambda names, _: show_splits(names),
    "boundaries": lambda names, _: show_boundaries(calibration(names)),
    "outcomes": lambda names, _: show_outcomes(calibration(names), outcomes(names), outcomes(names)),
    "paper": lambda names, _: show(comparison(names)),
    "sweep": lambda names, folder: show_sweep(folder, jobs(folder, names)),
    "lines": lambda names, _: print_stdout("\n".join(name.replace("\n", " ") for name in names)),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_table_shows_every_name(capsys, tmp_path, table):
    names = [name for name in NAMES if len(name) < 40]  # longer ones are folded among other cells
    TABLES[table](names, tmp_path)
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    for name in names:
        assert shown(name if table != "lines" else name.replace("\n", " "), out), name


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_stays_one_line_and_steers_no_terminal(capsys, name):
    print_stderr(f"{name}: no such file")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not CONTROL.search(err)
    assert err == f"uniad: {printable(name)}: no such file\n"


def test_a_name_with_a_line_break_stays_whole_in_an_error(uniad, tmp_path):
    odd = tmp_path / "no\nsuch\x1b[2Jfolder"
    status, _, err = uniad("evaluate", f'ckpt_path="{odd}"', f"output_dir={tmp_path}/out")
    assert status == 2
    assert r"no\nsuch\x1b[2Jfolder" in err
    assert len(err.splitlines()) == 1


def test_nothing_is_printed_past_what_makes_it_printable():
    """`print`, a bar's line, and a console of rich each show what steers a terminal."""
    allowed = {
        "errors.py": {"print"},  # print_stdout and print_stderr
        "command_line/completion.py": {"print"},  # read by the shell: words of ours
        "results/printing.py": {"print"},  # print_table, of a console without markup
    }
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            place = path.relative_to(SOURCE).as_posix()
            if called == "print" or called.endswith(".print"):
                assert "print" in allowed.get(place, ()), (
                    f"{place}:{node.lineno} prints; use print_stdout or print_stderr"
                )
            if called == "tqdm.write":
                text = node.args[0]
                plain = isinstance(text, ast.Constant) or ast.unparse(text).startswith("printable(")
                assert plain, f"{place}:{node.lineno} writes beside a bar; use printable"
            if called == "Console" or called.endswith("partial"):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                console = called == "Console" or ast.unparse(node.args[0]) == "Console"
                assert not console or (given.get("markup"), given.get("emoji")) == ("False", "False"), place


def read_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def undone(cell: str) -> str:
    return cell.removeprefix("'")


def test_csv_is_read_whole_by_python_and_as_text_by_a_spreadsheet():
    rows = [[name, -0.5, "-0.5", "+1e-3", "nan", "", None, name] for name in NAMES]
    text = csv_text(rows)
    assert "\r\n" not in text.replace('"\r\n', "")
    read = read_csv(text)
    assert [[undone(row[0]), *row[1:7], undone(row[7])] for row in read] == [
        [name, "-0.5", "-0.5", "+1e-3", "nan", "", "", name] for name in NAMES
    ]
    for row in read:
        assert row[0] == "-" or row[0][:1] not in tuple("=+-@\t\r\n＝＋－＠")


def test_every_table_file_holds_every_name(tmp_path, capsys):
    names = [name for name in NAMES if "\udcff" not in name]
    write_evaluation(tmp_path, evaluation(names), facts={})
    write_report(tmp_path, calibration(names), outcomes(names), [], {})
    show_sweep(tmp_path, jobs(tmp_path, names))

    def cells(name, column):
        with (tmp_path / name).open(newline="") as file:
            return [undone(row[column]) for row in csv.reader(file, strict=True)]

    assert cells("results.csv", 0)[1:-2] == names
    assert cells("outcomes.csv", 1)[1:] == names
    assert cells("sweep.csv", 1)[1:] == names
    assert [undone(row[0]) for row in read_csv(comma_separated(comparison(names)))[1:]] == names
    write_evaluation(tmp_path, evaluation(["\udcff"]), facts={})  # bytes that are no text are escaped in files, too
    assert cells("results.csv", 0)[1] == "\\udcff"


def test_markdown_and_latex_show_names_as_they_stand():
    table = comparison(["a|b", "a_b%&#{}~\\$^", "a\nb"])
    lines = markdown(table).splitlines()
    assert r"| a\|b | - |" in lines[4]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines[2:7]} == {8}
    tex = latex(table)
    assert r"a\_b\%\&\#\{\}\~{}\textbackslash{}\$\^{} & -" in tex
    assert r"a\textbackslash{}nb" in tex


@pytest.mark.slow
def test_pictures_are_drawn_with_any_name(tmp_path):
    names = NAMES
    scores = {name: {"sets the boundary": np.ones(2), "good": np.ones(2), "defective": np.ones(2)} for name in names}
    draw_scores(tmp_path / "scores.png", calibration(names), scores)
    draw_bars(tmp_path / "bars.png", comparison(names))
    numbers = {"image_auroc": [0.5], "pixel_auroc": [0.5]}
    draw_sweep([Setting({"a": name, "$b^$": name}, numbers, 1) for name in names], tmp_path / "sweep.png")
    tried = [Tried(i, float(i), {"$k^$": name}) for i, name in enumerate(names)]
    draw_search(tried, tried[-1], objective="x", log=[], path=tmp_path / "search.png")
    pixels = np.zeros((8, 8, 3), np.uint8)
    draw_sheet({name: [pixels] * len(names) for name in ("\udcff", "a")}, names).save(tmp_path / "sheet.png")
    drawn = {path.name: Image.open(path).size for path in tmp_path.glob("*.png")}
    assert drawn.keys() == {f"{name}.png" for name in ("scores", "bars", "sweep", "search", "sheet")}
    assert min(min(size) for size in drawn.values()) > 20


def test_a_jobs_folder_fits_into_a_file_system():
    folder = job_folder([f"data.categories={'工' * 118}"], [])
    assert len(os.fsencode(folder)) <= 255
    assert folder != job_folder([f"data.categories={'工' * 118}具"], [])


ODD = ("[plate]", "=1+2", "$x^$", "y" * 255)


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A run on products with odd names, with a boundary; of a folder with odd file names."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("odd")
    tree = mvtec_tree(folder / "tree", train=9, size=(72, 72), categories=list(ODD))
    for product in ODD:
        for kind in (tree / product / "test").iterdir():
            first = sorted(kind.iterdir())[0]
            mask = tree / product / "ground_truth" / kind.name / f"{first.stem}_mask.png"
            odd = os.fsdecode(b"\x1b[31m\xff" + os.fsencode("\u202e"))
            first.rename(first.with_name(f"{odd}.png"))
            if mask.exists():
                mask.rename(mask.with_name(f"{odd}_mask.png"))
    words = [*SMALL, "trainer.max_epochs=1", f"data.root={tree}", "data.held_out=0.3", f"output_dir={folder}/run"]
    assert run_command("train", words) == 0
    return folder


@pytest.mark.slow
def test_products_and_files_with_odd_names_are_trained_on_evaluated_and_calibrated(odd_run, uniad):
    run, last = odd_run / "run", odd_run / "run" / "checkpoints" / "last.ckpt"
    assert [undone(row[0]) for row in read_csv((run / "results.csv").read_text())[1:-2]] == sorted(ODD)
    assert len(list((run / "heatmaps").iterdir())) == len(ODD)
    status, out, err = uniad(
        "evaluate", f"ckpt_path={last}", f"output_dir={odd_run}/e", "trainer=cpu", "save_maps=true"
    )
    assert status == 0, err
    assert "[plate]" in out
    status, out, err = uniad("calibrate", f"ckpt_path={last}", f"output_dir={odd_run}/c", "device=cpu", "rate=0.3")
    assert status == 0, err
    assert "[plate]" in out
    assert not CONTROL.search(out)


def test_files_with_odd_names_are_predicted_and_gone_on_with(odd_run, uniad, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [b"=cmd.png", b"a\rb.png", b"\x1b[31mred.png", b"\xff.png", "\u202egnp.png".encode(), b"-1.png", b"ok.png"]
    for name in names:
        shutil.copy(next((odd_run / "tree" / "=1+2" / "train" / "good").iterdir()), photos / os.fsdecode(name))
    (photos / os.fsdecode(b"broken\x1b[2J\r.png")).write_bytes(b"no image")
    last = odd_run / "run" / "checkpoints" / "last.ckpt"
    words = [f"ckpt_path={last}", f"input={photos}", f"output_dir={tmp_path}/out", "device=cpu", "overlays=all"]
    status, out, err = uniad("predict", *words)
    assert status == 1, err
    assert not CONTROL.search(out)
    assert r"broken\x1b[2J\r.png" in err
    table = (tmp_path / "out" / "predictions.csv").read_bytes()
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    paths = {undone(row["path"]) for row in rows}
    assert {Path(path).name for path in paths} >= {"=cmd.png", "a\rb.png", "\x1b[31mred.png", "-1.png", "ok.png"}
    assert not any(row["path"].startswith(("=", "-", "+", "@")) for row in rows)
    status, _, err = uniad("predict", *words, "resume=true")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == table


def test_an_input_error_of_a_worker_is_told_without_its_traceback():
    from uniad_lightning.command_line.error_messages import explain
    from uniad_lightning.command_line.parsing import parse

    text = "Caught InputError in worker 0.\nTraceback\n  x\nuniad_lightning.errors.InputError: a\nb: cannot be read\n"
    assert explain(InputError(text), "train", parse("train", [])) == "a\nb: cannot be read"
    assert explain(InputError("a\nb: no such file"), "train", parse("train", [])) == "a\nb: no such file"
