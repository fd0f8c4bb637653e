"""Tables in the terminal: one evaluation, the categories of a data set."""

from collections.abc import Callable, Iterable, Sequence

from uniad_lightning.data.records import Splits, counts
from uniad_lightning.errors import print_stdout
from uniad_lightning.metrics.anomaly_metrics import POOLED, Evaluation
from uniad_lightning.metrics.recount import TOLERANCE
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.results.run_folder import COLUMNS, rows


def show_evaluation(evaluation: Evaluation) -> None:
    """Print the results of each category in percent; a row that needed finer bins is marked."""
    kept = defined(COLUMNS, lambda column: [getattr(row, column) for _, row in rows(evaluation)])
    columns = [("category", LEFT), *((column.replace("_", "\n"), RIGHT) for column in ("images", *kept))]
    shown: list[Sequence[object] | None] = []
    for name, row in rows(evaluation):
        if name == "mean":
            shown.append(None)
        mark = " *" if name in evaluation.refined else ""
        shown.append([name + mark, row.images, *(percent(getattr(row, column)) for column in kept)])
        if name in ("mean", POOLED) and evaluation.intervals:
            shown += _interval_lines(evaluation, name, kept)
    print_table("results in %", columns, shown)
    incomplete = {
        n: over for n, over in evaluation.mean_over.items() if n in kept and over < len(evaluation.categories)
    }
    if incomplete:
        over = ", ".join(f"{name} over {n}" for name, n in incomplete.items())
        print_stdout(f"mean over fewer than {len(evaluation.categories)} categories (undefined elsewhere): {over}")
    if evaluation.intervals:
        print_stdout("95 %: confidence interval over the test images, by bootstrap; of each category in results.csv")
    if evaluation.refined:
        print_stdout("* pixel scores counted in finer bins, for an error of each pixel metric of at most 1e-4")
    worst = max((value for bounds in evaluation.error_bounds.values() for value in bounds if value == value), default=0)
    if worst > TOLERANCE:
        print_stdout(
            f"pixel metrics are within {worst:.1e} of their exact values: maps of this size are counted, not kept"
        )


def _interval_lines(evaluation: Evaluation, name: str, columns: Sequence[str]) -> list[Sequence[object]]:
    """Both ends of the intervals of a row, below each other: so they fit at any width that the numbers fit."""
    known = evaluation.intervals.get(name, {})
    ends = [known.get(column) for column in columns]
    return [
        [f"  95 % {side}", "", *("-" if end is None else percent(getattr(end, field)) for end in ends)]
        for side, field in (("from", "low"), ("to", "high"))
    ]


def show_counts(splits: Splits) -> None:
    """Print how many images each category has, with the held-out ones where there are any."""
    listed = [row._asdict() for row in counts(splits)]
    shown = {"train_good": "train", "test_good": "test good", "test_defective": "test defective"}
    if splits.validation:
        shown["validation_good"] = "held-out"
    columns = [("category", LEFT), *((title, RIGHT) for title in shown.values()), ("defects", LEFT)]
    rows: list[Sequence[object] | None] = []
    for row in listed:
        kinds = ", ".join(f"{name} {n}" for name, n in row["by_defect"].items())
        rows.append([row["category"], *(row[field] for field in shown), kinds])
    rows += [None, ["all", *(sum(row[field] for row in listed) for field in shown), ""]]
    print_table("images", columns, rows)


def percent(value: float | None) -> str:
    """A fraction in percent with two decimals; `nan` for an undefined one."""
    return "nan" if value is None or value != value else f"{100 * value:.2f}"


def defined(columns: Sequence[str], values: Callable[[str], Iterable[float]]) -> list[str]:
    """Those of `columns` of which any of the `values` is a number; says of the others in a sentence why they lack."""
    kept = [column for column in columns if any(value == value for value in values(column))]
    missing = [column for column in columns if column not in kept]
    pixel = [column for column in missing if not column.startswith("image_")]
    if pixel:
        print_stdout(f"no test image has a mask of its defect, so no {', '.join(pixel)}")
    if len(missing) > len(pixel):
        names = ", ".join(name for name in missing if name not in pixel)
        print_stdout(f"no category has both good and defective test images, so no {names}")
    return kept
