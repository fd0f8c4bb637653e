"""`uniad table NAME RUNS... [out=DIR]`: run folders beside the paper's numbers, in the paper's layout."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from uniad_lightning.command_line.parsing import conf_dir
from uniad_lightning.data.layouts.published import Published
from uniad_lightning.errors import InputError, did_you_mean, print_stdout
from uniad_lightning.files.user_path import expand
from uniad_lightning.paper.differences import notes_on_differences
from uniad_lightning.paper.filling import Layout, place
from uniad_lightning.paper.gathering import Run, differences, find_runs, settings_of
from uniad_lightning.paper.layouts import LAYOUTS
from uniad_lightning.paper.numbers import SEEDS
from uniad_lightning.paper.rows import system
from uniad_lightning.paper.writing import comma_separated, latex, markdown, show
from uniad_lightning.results.run_folder import write_text
from uniad_lightning.training.resume import plain

_OUT = "out="
_WRITERS = {"md": markdown, "tex": latex, "csv": comma_separated}
# Covered by the note on the data, or without a counterpart in the paper.
_NOT_OF_THE_PAPER = ("data.source", "data.prepare", "data.cache")


def show_table(arguments: list[str]) -> bool:
    """Print the list of tables, or print one and write its files; False if runs are left out as unfinished.

    Raises InputError for an unknown name, folders that hold no run of the table, and runs that cannot be compared.
    """
    names = [given for given in arguments if not given.startswith(_OUT) and given not in ("-h", "--help")]
    outs = [expand(given.removeprefix(_OUT)) for given in arguments if given.startswith(_OUT)]
    if not names:
        _list_tables()
        return True
    layout = LAYOUTS.get(names[0])
    if layout is None:
        near = did_you_mean(names[0], LAYOUTS)
        raise InputError(f"uniad table {names[0]}: no such table.{near} Known: {', '.join(LAYOUTS)}")
    if len(names) == 1 or len(outs) > 1:
        raise InputError(
            f"uniad table {' '.join(arguments)}: expected uniad table {names[0]} RUNS... [out=DIR]; such runs come "
            f"from {' and '.join(_commands(layout))}"
        )
    runs, unfinished = find_runs([expand(name) for name in names[1:]])
    rows, unfit = place(layout, runs)
    left_out = [f"left out: {folder}: {reason}" for folder, reason in {**unfinished, **unfit}.items()]
    if not rows:
        raise InputError(f"uniad table {names[0]}: no finished run has a place in it; {'; '.join(left_out)}")
    table = layout.fill(layout, rows)
    noise = notes_on_differences(layout, rows)
    table = table._replace(notes=(*_departures(layout, rows), *table.notes, *noise, *left_out))
    show(table)
    folder = outs[0] if outs else Path()
    files = {suffix: folder / f"{names[0]}.{suffix}" for suffix in (*_WRITERS, "png")}
    for suffix, text_of in _WRITERS.items():
        write_text(files[suffix], text_of(table))
    layout.draw(files["png"], table)
    print_stdout(f"files: {' '.join(map(str, files.values()))}")
    return not unfinished


def _list_tables() -> None:
    for name, layout in LAYOUTS.items():
        print_stdout(f"{name:5} {layout.title}")
        for command in _commands(layout):
            print_stdout(f"{'':5} {command}")


def _commands(layout: Layout) -> list[str]:
    """The commands that train the runs of a table, over as many seeds as in the paper."""
    seeds = ",".join(map(str, range(SEEDS)))
    return [f"uniad train {layout.experiment} {overrides} seed={seeds}" for overrides in layout.overrides]


def _departures(layout: Layout, rows: Mapping[Hashable, Sequence[Run]]) -> list[str]:
    """Notes on what differs from the paper's setup, so that a difference in numbers is not one of reproduction."""
    runs = [run for row in rows.values() for run in row]
    notes = _other_data(layout.data, {name: row["images"] for run in runs for name, row in run.categories.items()})
    if any(run.of_best_epoch for run in runs):
        notes.append("the numbers are of the epoch that is best on the test split itself: optimistic by design")
    ours = [run for run in runs if system(run.settings) is None]  # the other systems have papers of their own
    changed = differences([_as_in_paper(layout), *ours], varied=(*layout.varies, *_NOT_OF_THE_PAPER))
    known = {name for run in ours for name in run.settings}  # not settings of later versions
    settings = [f"{name}={values[1]} ({values[0]})" for name, values, _ in changed if name in known]
    if settings:
        notes.append(f"settings that are not the paper's (in brackets): {', '.join(settings)}")
    return notes


def _other_data(published: Published, tested: Mapping[str, int]) -> list[str]:
    """A note where the `tested` numbers of images by category are not those of the paper's data."""
    numbers = {name: (row.test_good or 0) + (row.test_defective or 0) for name, row in published.images.items()}
    if tested == numbers:
        return []
    names = ", ".join(sorted(tested))
    if not tested.keys() <= numbers.keys():
        tested_data = f"{names}, not {published.title}"
    elif tested.keys() < numbers.keys():
        tested_data = f"only {names} of {published.title}"
    else:
        other = (f"{name} {count} ({numbers[name]})" for name, count in tested.items() if count != numbers[name])
        tested_data = (
            f"{published.title} with other numbers of test images than published (in brackets): {', '.join(other)}"
        )
    return [
        f"the data are {tested_data}; the paper's numbers are of others, so a difference is not one of reproduction"
    ]


def _as_in_paper(layout: Layout) -> Run:
    """A run with the paper's settings, without results."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return Run(Path(), settings_of(plain(compose("train", layout.experiment.split()))), {})
