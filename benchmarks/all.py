"""Every benchmark, in one table of ratios against what the package replaces.

    python benchmarks/all.py [--quick] [--threads 1] [--only backbone,pixel_metrics]

One thread against one thread, since sorting knows no other and a core that is busy elsewhere would stall both. Prints
the rows (ratio: opponent's time, or memory, over ours; the range is that over the turns) and writes `results.json`
beside this file: a list of row, ratio and target, null where there is none. `--quick` sees in a minute or so that
everything runs, on less data and with fewer turns: its ratios are no results, and it writes no file. Nor does a run in
which a benchmark found its opponent's output to differ; it ends with status 1.
"""

import argparse
import importlib
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import Row, machine

BENCHMARKS = (
    "backbone",
    "training_step",
    "epoch",
    "growth",
    "latency",
    "bank_search",
    "pixel_metrics",
    "intervals",
    "exported",
    "serving",
    "startup",
)
RESULTS = Path(__file__).with_name("results.json")


def show(rows: list[Row], console: Console) -> None:
    table = Table("row: opponent", "ours", "opponent", "ratio", "range", "target", title=machine())
    for row in rows:
        times = [f"{row[side]:.3g} {row.get('unit', 's')}" for side in ("ours", "opponent")]
        spread = f"{row['low']:.1f}-{row['high']:.1f}" if "low" in row else ""
        target = "" if row["target"] is None else f"{row['target']:g}"
        missed = row["target"] is not None and row["ratio"] < row["target"]
        ratio = f"{row['ratio']:.2f}"
        table.add_row(row["row"], *times, f"[red]{ratio}[/red]" if missed else ratio, spread, target)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="see that everything runs")
    parser.add_argument("--only", help=f"some of {','.join(BENCHMARKS)}")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with more, a busy core slows all of them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=None if Console().is_terminal else 160)
    found: list[Row] = []
    refused: list[str] = []
    for name in options.only.split(",") if options.only else BENCHMARKS:
        console.print(f"{name} ...")
        try:
            found += importlib.import_module(name).rows(options.quick)
        except SystemExit as unequal:  # from `prove_equal`; the others still have their say
            refused.append(str(unequal))
    show(found, console)
    if refused:
        raise SystemExit("\n".join(refused))
    if not options.quick and not options.only:
        kept = [{key: row[key] for key in ("row", "ratio", "target")} for row in found]
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
