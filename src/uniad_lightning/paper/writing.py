"""A table on the terminal and as Markdown, LaTeX and CSV."""

from uniad_lightning.errors import print_stdout, printable
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.paper.comparison import NONE, Cell, Comparison, Line
from uniad_lightning.results.printing import LEFT, RIGHT, Justify, fits, print_table

_LATEX = str.maketrans(
    {**{sign: rf"\{sign}" for sign in "_%&#${}"}, "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "±": r"$\pm$"}
)


def show(comparison: Comparison) -> None:
    """Print the table without the other methods, groups that do not fit beside the others below them, and its notes."""
    labels = [(head, LEFT) for head in comparison.heads]
    columns = list(labels)
    for group, names in comparison.columns().items():
        columns += [(f"{'' if place else group}\n{name}", RIGHT) for place, name in enumerate(names)]
    rows = [[*line.labels, *_cells(comparison, line)] for line in comparison.lines]
    title = f"{comparison.title}; AUROC in %"
    for block in _blocks(columns, rows, len(labels)):
        print_table(title, [columns[i] for i in block], [[row[i] for i in block] for row in rows])
        title = ""
    for place, group in enumerate(comparison.groups):
        if all(line.cells[place].ours is None for line in comparison.lines):
            print_stdout(f"no {group} of ours: no run has it; pixel metrics are undefined without masks")
    for note in comparison.notes:
        print_stdout(note)


def _blocks(columns: list[tuple[str, Justify]], rows: list[list[str]], labels: int) -> list[list[int]]:
    """Places of the columns that are printed beside each other: the first `labels`, and groups as far as they fit."""
    groups: list[list[int]] = []
    for place in range(labels, len(columns)):
        if not columns[place][0].startswith("\n"):
            groups.append([])
        if any(row[place] for row in rows):
            groups[-1].append(place)
    blocks = [list(range(labels))]
    for group in filter(None, groups):
        wider = [*blocks[-1], *group]
        alone = len(blocks[-1]) == labels
        if alone or fits([columns[i] for i in wider], [[row[i] for i in wider] for row in rows]):
            blocks[-1] = wider
        else:
            blocks.append([*range(labels), *group])
    return blocks


def markdown(comparison: Comparison) -> str:
    """The table and its notes."""
    columns = [f"{group}: {column}" for group, columns in comparison.columns().items() for column in columns]
    heads = [*comparison.heads, *comparison.others, *columns]
    aligned = ["---"] * len(comparison.heads) + ["---:"] * (len(heads) - len(comparison.heads))
    rows = [[*line.labels, *line.other_texts(), *_cells(comparison, line)] for line in comparison.lines]
    shown = [[printable(cell).replace("|", r"\|") for cell in row] for row in (heads, aligned, *rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in shown)
    notes = "\n".join(f"- {printable(note)}" for note in comparison.notes)
    return f"{comparison.title}; AUROC in %\n\n{table}\n" + (f"\n{notes}\n" if notes else "")


def latex(comparison: Comparison) -> str:
    """A `tabular` with the rules of the package booktabs; title and notes are comments above it."""
    comments = [f"{comparison.title}; AUROC in %; needs \\usepackage{{booktabs}}", *comparison.notes]
    labels = [*comparison.heads, *comparison.others]
    columns = comparison.columns()
    wide = [rf"\multicolumn{{{len(names)}}}{{c}}{{{group}}}" for group, names in columns.items()]
    heads = [*labels, *(name for names in columns.values() for name in names)]
    rows = [[*line.labels, *line.other_texts(), *_cells(comparison, line)] for line in comparison.lines]
    spec = "l" * len(comparison.heads) + "r" * (len(heads) - len(comparison.heads))
    lines = [
        *(f"% {printable(comment)}" for comment in comments),
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        " & ".join([*[""] * len(labels), *wide]) + r" \\",
        _latex_row(heads),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """One row for each line, every number in a column of its own, empty without one."""
    parts = ("mean", "deviation", "n", "paper", "paper_deviation", "difference")
    numbers = [f"{group} {part}".replace(", ", "_").replace(" ", "_") for group in comparison.groups for part in parts]
    heads = [*(head.replace(" ", "_") for head in comparison.heads), *comparison.others, *numbers]
    rows = [
        [*line.labels, *line.other_texts(), *(n for cell in line.cells for n in _numbers(cell))]
        for line in comparison.lines
    ]
    return csv_text([heads, *rows])


def _cells(comparison: Comparison, line: Line) -> list[str]:
    columns = comparison.columns().values()
    return [cell.texts()[name] for cell, names in zip(line.cells, columns, strict=True) for name in names]


def _numbers(cell: Cell) -> list[str]:
    mean, deviation, n = cell.ours or (None, None, None)
    shown = ["" if v is None else f"{v:.4f}" for v in (mean, deviation, cell.difference)]
    paper = ["" if v is None else str(v) for v in (cell.paper, cell.paper_deviation)]
    return [*shown[:2], "" if n is None else str(n), *paper, shown[2]]


def _latex_row(texts: list[str]) -> str:
    shown = (printable(text).translate(_LATEX) for text in texts)
    return " & ".join(f"${text}$" if text[:1] in ("+", "-") and text != NONE else text for text in shown) + r" \\"
