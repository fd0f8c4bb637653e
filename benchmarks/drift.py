"""How often drift is called without any, and how soon where there is some: scores drawn at random, many calibrations.

    python benchmarks/drift.py OUT [--seeds 200]

Writes OUT/drift.md, tables of alarms per 10,000 images and of the images until an alarm, and OUT/drift.png. Each seed
has a calibration of its own, and 10,000 images, each of which moves the window by one. Only the order of scores counts,
so they are drawn from the normal distribution alone, and a spread is its standard deviation; what matters is whether
neighbouring images are alike, which the calibration does not know of: `autocorrelation` is that of two in a row.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.signal import lfilter

from uniad_lightning.drift.monitor import DRIFT, Monitor
from uniad_lightning.inspection.baseline import Baseline
from uniad_lightning.inspection.boundary import Boundary, Calibration

CALIBRATIONS, WINDOWS, SHIFTS, DEFECTS = (20, 50, 200), (100, 200, 500), (0.5, 1.0, 2.0), (0.0, 0.1, 0.2)
AUTOCORRELATIONS = (0.0, 0.5)
IMAGES = 10_000
UNFAMILIAR = 0.01  # share of good images, as unfamiliar_rate of uniad calibrate


class Case(NamedTuple):
    """A line of parts: how many good images it was calibrated with, and what it makes."""

    calibrated: int
    window: int
    autocorrelation: float = 0.0
    defects: float = 0.0
    shift: float = 0.0  # spreads, as the two below once a window is full
    wider: float = 1.0  # times
    unfamiliar: float = UNFAMILIAR

    @property
    def drifts(self) -> bool:
        """Whether anything changes once the window is full."""
        return (self.shift, self.wider, self.unfamiliar) != (0.0, 1.0, UNFAMILIAR)


class Run(NamedTuple):
    """What one seed of a case gave."""

    alarms: int
    first: int | None  # images from the beginning of the drift until the first one


def run(case: Case, seed: int, images: int) -> Run:
    """The line for `images` behind a full window; one that drifts ends at its first alarm."""
    rng = np.random.default_rng(seed)
    strange = int((rng.random(case.calibrated) < UNFAMILIAR).sum())
    known = Baseline.of(rng.normal(size=case.calibrated), compared=case.calibrated, unfamiliar=strange)
    edge = Boundary(0.0, 0.0, 1.0, case.calibrated, 0.01, 0.0, 0.1)
    monitor = Monitor(Calibration("rate=0.01", edge, {}, True, {"part": known}), window=case.window, defects=0.1)
    count = case.window + images
    fresh = rng.normal(size=count) * (1 - case.autocorrelation**2) ** 0.5
    scores = lfilter([1.0], [1.0, -case.autocorrelation], fresh)
    later = np.arange(count) >= case.window
    scores = np.where(later, case.wider * scores + case.shift, scores)
    scores[rng.random(count) < case.defects] = 20.0
    familiar = rng.random(count) >= np.where(later, case.unfamiliar, UNFAMILIAR)
    alarms = 0
    for number, (score, usual) in enumerate(zip(scores.tolist(), familiar.tolist(), strict=True), start=1):
        change = monitor.add("part", score, familiar=usual)
        if change is not None and change.state == DRIFT:
            alarms += 1
            if case.drifts and number > case.window:
                return Run(alarms, number - case.window)
    return Run(alarms, None)


def runs(case: Case, seeds: int, images: int, pool: ProcessPoolExecutor) -> list[Run]:
    return list(pool.map(run, [case] * seeds, range(seeds), [images] * seeds, chunksize=max(seeds // 8, 1)))


def rates(seeds: int, pool: ProcessPoolExecutor) -> list[Sequence[object]]:
    """Rows: autocorrelation, calibration, window; for each share of defective parts the alarms per 10,000 images."""
    table: list[Sequence[object]] = []
    for autocorrelation in AUTOCORRELATIONS:
        for calibrated in CALIBRATIONS:
            for window in WINDOWS:
                cells = []
                for defects in DEFECTS:
                    found = runs(Case(calibrated, window, autocorrelation, defects), seeds, IMAGES, pool)
                    cells.append(f"{sum(one.alarms for one in found) / seeds:.3f}")
                table.append([autocorrelation, calibrated, window, *cells])
                print(*table[-1], flush=True)
    return table


def delays(seeds: int, pool: ProcessPoolExecutor) -> tuple[list[Sequence[object]], dict[Case, list[Run]]]:
    """Rows: calibration, window, and for each kind of drift the median of the images until the alarm, and its share."""
    table: list[Sequence[object]] = []
    all_found = {}
    for calibrated in CALIBRATIONS:
        for window in WINDOWS:
            same = Case(calibrated, window)
            cases = [same._replace(shift=shift) for shift in SHIFTS]
            cases += [same._replace(shift=-1.0), same._replace(wider=2.0), same._replace(unfamiliar=0.5)]
            cells = []
            for case in cases:
                found = all_found[case] = runs(case, seeds, 2000, pool)
                firsts = sorted(one.first for one in found if one.first is not None)
                share = len(firsts) / seeds
                cells.append(f"{firsts[len(firsts) // 2]} ({share:.0%})" if firsts else "none")
            table.append([calibrated, window, *cells])
            print(*table[-1], flush=True)
    return table, all_found


def draw(path: Path, found: dict[Case, list[Run]]) -> None:
    """Share of calibrations whose line has had its alarm, over the images since the shift."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, shift in zip(figure.subplots(1, len(SHIFTS), sharey=True), SHIFTS, strict=True):
        for colour, calibrated in zip(("tab:red", "tab:orange", "tab:blue"), CALIBRATIONS, strict=True):
            for style, window in zip((":", "-"), (100, 200), strict=True):
                runs_of = found[Case(calibrated, window, shift=shift)]
                firsts = sorted(one.first for one in runs_of if one.first is not None)
                shares = np.arange(len(firsts) + 1) / len(runs_of)
                label = f"{calibrated} good images, window {window}"
                axes.step([0, *firsts], shares, style, where="post", color=colour, label=label)
        axes.set_title(f"shift of {shift:g} spreads")
        axes.set_xlabel("images since the shift")
        axes.set_xlim(0, 1000)
    figure.axes[0].set_ylabel("share of lines with an alarm")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=200)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        rows, found = delays(given.seeds, pool)
        shifted = [f"{shift:g} spreads" for shift in SHIFTS]
        text = markdown(["good images", "window", *shifted, "-1 spread", "twice as wide", "half unfamiliar"], rows)
        draw(given.out / "drift.png", found)
        head = ["autocorrelation", "good images", "window", *(f"{defects:.0%} defective" for defects in DEFECTS)]
        text += "\n" + markdown(head, rates(given.seeds, pool))
    (given.out / "drift.md").write_text(text)


if __name__ == "__main__":
    main()
