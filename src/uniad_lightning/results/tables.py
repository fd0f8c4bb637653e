"""Tables in the terminal: one evaluation, the categories of a data set."""

from rich.console import Console
from rich.table import Table

from uniad_lightning.data.records import Splits, counts
from uniad_lightning.metrics import Evaluation
from uniad_lightning.results.run_folder import COLUMNS, rows


def show_evaluation(evaluation: Evaluation) -> None:
    """Print per-category results in percent; a row that needed finer bins is marked."""
    table = Table(title="results in %", title_justify="left")
    table.add_column("category")
    for column in ("images", *COLUMNS):
        table.add_column(column.replace("_", "\n"), justify="right")
    for name, row in rows(evaluation):
        if name == "mean":
            table.add_section()
        mark = " *" if name in evaluation.refined else ""
        table.add_row(name + mark, str(row.images), *(percent(getattr(row, column)) for column in COLUMNS))
    print_table(table)
    incomplete = {name: n for name, n in evaluation.mean_over.items() if n < len(evaluation.categories)}
    if incomplete:
        over = ", ".join(f"{name} over {n}" for name, n in incomplete.items())
        print(f"mean over fewer than {len(evaluation.categories)} categories (undefined elsewhere): {over}")
    if evaluation.refined:
        print("* pixel scores counted in finer bins, for an error of each pixel metric of at most 1e-4")


def show_counts(splits: Splits) -> None:
    """Print how many images each category has; those kept apart only where there are some."""
    listed = [row._asdict() for row in counts(splits)]
    shown = {"train_good": "train", "test_good": "test good", "test_defective": "test defective"}
    if splits.validation:
        shown["validation_good"] = "kept apart"
    table = Table(title="images", title_justify="left")
    table.add_column("category")
    for title in shown.values():
        table.add_column(title, justify="right")
    table.add_column("defects")
    for row in listed:
        kinds = ", ".join(f"{name} {n}" for name, n in row["by_defect"].items())
        table.add_row(row["category"], *(str(row[field]) for field in shown), kinds)
    table.add_section()
    table.add_row("all", *(str(sum(row[field] for row in listed)) for field in shown), "")
    print_table(table)


def percent(value: float | None) -> str:
    """A fraction in percent with two decimals; what is undefined is `nan`."""
    return "nan" if value is None or value != value else f"{100 * value:.2f}"


def print_table(table: Table) -> None:
    """Print a table; off a terminal 140 columns wide."""
    console = Console()
    # Off a terminal rich assumes 80 columns and would fold the numbers.
    console.print(table) if console.is_terminal else Console(width=140).print(table)
