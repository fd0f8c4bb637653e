"""The result of a sweep: a table and a plot, with the runs of one setting over several seeds put together."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.files.atomic import replacing
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.results.axes import note_if_equal, tick_values
from uniad_lightning.results.labels import label
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.results.run_folder import COLUMNS, read_metrics, write_text
from uniad_lightning.results.tables import defined, percent

RUNS, PLOT = "sweep.csv", "sweep.png"
SEED = "seed"
DRAWN = {"image_auroc": "image AUROC, %", "pixel_auroc": "pixel AUROC, %"}
_LOGARITHMIC = 50  # from this ratio of the largest to the smallest value on


class Job(NamedTuple):
    """One run of a sweep: its folder, the values of what the sweep varies, and whether it failed."""

    folder: Path
    varied: dict[str, str]
    failed: bool


class Setting(NamedTuple):
    """The finished runs of one setting: its values by key, the numbers of each metric over seeds, how many runs."""

    values: dict[str, str]
    numbers: dict[str, list[float]]
    runs: int


def show_sweep(folder: Path, jobs: Sequence[Job]) -> None:
    """Print the means of each setting; write into `folder` a row for each run (`sweep.csv`), and a plot if keys vary.

    Raises InputError, after the table, where files of these names are not of a sweep.
    """
    settings = gather(jobs)
    keys = list(settings[0].values) if settings else []
    columns = [(key.replace(".", ".\n"), LEFT) for key in keys or ["run"]]
    finished = any(setting.runs for setting in settings)
    kept = defined(COLUMNS, lambda column: [n for s in settings for n in s.numbers[column]]) if finished else COLUMNS
    columns += [(column.replace("_", "\n"), RIGHT) for column in ("runs", *kept)]
    rows = []
    for setting in settings:
        shown = [spread(setting.numbers[column], setting.runs) for column in kept] if setting.runs else ["failed"]
        rows.append([*(setting.values.values() or ["run"]), setting.runs, *shown])
    print_table(f"sweep {folder}: means over the categories in %, ± deviation over seeds", columns, rows)
    _refuse_in_the_way(folder)
    _write_runs(folder / RUNS, jobs)
    print_stdout(f"each run: {folder / RUNS}")
    drawn = [setting for setting in settings if setting.runs]
    if keys and drawn:
        draw_sweep(drawn, folder / PLOT)
        print_stdout(f"plot: {folder / PLOT}")


def gather(jobs: Sequence[Job]) -> list[Setting]:
    """The settings of a sweep in its order; runs that differ in the seed alone are of one setting."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.varied))
    keys = [key for key in keys if key != SEED] or keys
    settings: dict[tuple[str, ...], Setting] = {}
    for job in jobs:
        values = {key: job.varied.get(key, "") for key in keys}
        setting = settings.setdefault(tuple(values.values()), Setting(values, {name: [] for name in COLUMNS}, 0))
        metrics = None if job.failed else read_metrics(job.folder)
        if metrics is not None:
            settings[tuple(values.values())] = setting._replace(runs=setting.runs + 1)
            for name, numbers in setting.numbers.items():
                numbers.extend([metrics["mean"][name]] if metrics["mean"].get(name) is not None else [])
    return list(settings.values())


def spread(numbers: Sequence[float], runs: int) -> str:
    """The mean in percent, the sample deviation of several numbers, and how many of the `runs` have one if not all."""
    if not numbers:
        return "nan"
    mean = percent(statistics.fmean(numbers))
    text = mean if len(numbers) == 1 else f"{mean} ± {percent(statistics.stdev(numbers))}"
    return text if len(numbers) == runs else f"{text} ({len(numbers)} of {runs})"


def draw_sweep(settings: Sequence[Setting], path: Path) -> None:
    """Plot image and pixel AUROC over the first key that varies, a line per value of the others, bars over seeds."""
    first, *others = settings[0].values
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), DRAWN.items(), strict=True):
        _draw_metric(axes, settings, metric, first)
        axes.set(xlabel=label(first), ylabel=title)
        axes.grid(alpha=0.3)
        means = [100 * statistics.fmean(s.numbers[metric]) for s in settings if s.numbers[metric]]
        note_if_equal(axes, means, digits=2)
        undefined = sum(setting.runs - len(setting.numbers[metric]) for setting in settings)
        if undefined:
            runs = sum(setting.runs for setting in settings)
            axes.set_title(f"undefined in {undefined} of {runs} runs", fontsize=9)
        if others and axes.get_legend_handles_labels()[0]:
            axes.legend(title=label(", ".join(others)), fontsize=8, title_fontsize=8)
    with replacing(path, path.suffix) as temporary:
        figure.savefig(temporary, dpi=110)


def _draw_metric(axes: Axes, settings: Sequence[Setting], metric: str, first: str) -> None:
    ticks = list(dict.fromkeys(setting.values[first] for setting in settings))
    numeric = all(_is_number(tick) for tick in ticks)
    lines: dict[str, list[Setting]] = {}
    for setting in settings:
        lines.setdefault(", ".join(v for k, v in setting.values.items() if k != first), []).append(setting)
    for place, (name, line) in enumerate(lines.items()):
        drawn = [s for s in line if s.numbers[metric]]
        if not drawn:
            continue
        shift = 0.0 if numeric else 0.12 * (place - (len(lines) - 1) / 2)
        x = [float(s.values[first]) if numeric else ticks.index(s.values[first]) + shift for s in drawn]
        mean = [100 * statistics.fmean(s.numbers[metric]) for s in drawn]
        over_seeds = [100 * statistics.stdev(s.numbers[metric]) if len(s.numbers[metric]) > 1 else 0 for s in drawn]
        line_style = "-" if numeric else "none"
        axes.errorbar(x, mean, over_seeds, marker="o", linestyle=line_style, capsize=4, label=label(name))
    if not numeric:
        axes.set_xticks(range(len(ticks)), list(map(label, ticks)), rotation=30, ha="right")
    elif min(map(float, ticks)) > 0 and max(map(float, ticks)) / min(map(float, ticks)) >= _LOGARITHMIC:
        axes.set_xscale("log")
    if numeric:
        tick_values(axes, list(map(float, ticks)))


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _refuse_in_the_way(folder: Path) -> None:
    """Raises InputError for a table or a plot in `folder` that no sweep has written: a plot comes after its table."""
    there = [folder / name for name in (RUNS, PLOT) if (folder / name).exists()]
    if there and not _is_table(folder / RUNS):  # looked at last: another worker of a search may be writing them
        raise InputError(f"{there[0]}: is in the way, and no sweep has written it; move it, then repeat the command")


def _is_table(path: Path) -> bool:
    """Whether a sweep has written the file; False where it is missing."""
    if not path.is_file():
        return False
    with path.open(errors="replace") as file:
        head = file.readline(10_000)
    return head.startswith("run,") and head.endswith(f",{','.join(COLUMNS)}\n")


def _write_runs(path: Path, jobs: Sequence[Job]) -> None:
    keys = list(dict.fromkeys(key for job in jobs for key in job.varied))
    rows: list[Sequence[str]] = [["run", *keys, *COLUMNS]]
    for job in jobs:
        metrics = None if job.failed else read_metrics(job.folder)
        numbers = [metrics["mean"].get(column) for column in COLUMNS] if metrics else [None] * len(COLUMNS)
        shown = ["" if number is None else f"{number:.6f}" for number in numbers]
        rows.append([job.folder.name, *(job.varied.get(key, "") for key in keys), *shown])
    write_text(path, csv_text(rows))
