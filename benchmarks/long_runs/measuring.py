"""What a process holds, every few seconds: memory, descriptors, threads, disk; whether it stays flat; the picture."""

import csv
import json
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import psutil

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend is set first

EVERY = 5.0  # seconds between samples


class Bound(NamedTuple):
    """What may grow by `per_hour`, and by `step` however short the run is."""

    title: str
    per_hour: float
    step: float


BOUNDS = {
    "memory": Bound("resident memory, MB", 20.0, 5.0),
    "descriptors": Bound("open descriptors", 2.0, 4.0),
    "threads": Bound("threads", 2.0, 4.0),
    "disk": Bound("disk beyond rows and overlays, kB", 50.0, 50.0),
}


class Sampler:
    """Samples a process until it is stopped; `disk` gives kB."""

    def __init__(self, process: psutil.Process, disk: Callable[[], float]):
        self.process, self.disk = process, disk
        self.rows: list[tuple[float, ...]] = []
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(EVERY):
            try:
                with self.process.oneshot():
                    held = self.process.memory_info().rss / 1e6, self.process.num_fds(), self.process.num_threads()
            except psutil.NoSuchProcess:  # whoever waits for it will say so
                return
            self.rows.append((time.monotonic() - self._began, *held, self.disk()))

    def stop(self) -> None:
        """End, with the samples in `rows`."""
        self._ended.set()
        self._thread.join()


def growth(rows: list[tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """Of each curve the value at half time and at the end, and the growth per hour, of a line through the second half.

    `rows` are seconds and the values of `BOUNDS` in their order, at least four of them.
    """
    later = np.array(rows[len(rows) // 2 :], dtype=float)
    found = {}
    for column, name in enumerate(BOUNDS, start=1):
        slope, level = np.polyfit(later[:, 0], later[:, column], 1)
        begin, end = (level + slope * later[place, 0] for place in (0, -1))
        found[name] = {
            "half_time": round(begin, 2), "end": round(end, 2), "largest": round(max(r[column] for r in rows), 2),
            "growth_per_hour": round(3600 * slope, 2),
        }  # fmt: skip
    return found


def faults_of(found: dict[str, dict[str, float]]) -> list[str]:
    """A line for each curve that grows faster than its bound."""
    return [
        f"{bound.title}: grows by {found[name]['growth_per_hour']} per hour, expected at most {bound.per_hour}"
        for name, bound in BOUNDS.items()
        if found[name]["growth_per_hour"] > bound.per_hour
        and found[name]["end"] - found[name]["half_time"] > bound.step
    ]


class Pace:
    """Keeps the processor's time of this process, its ended children and `process` to a share of one core."""

    def __init__(self, process: psutil.Process, share: float):
        self.process, self.share = process, share
        self._began, self._before = time.monotonic(), self._spent()

    def _spent(self) -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        running = self.process.cpu_times()
        return time.process_time() + ended.ru_utime + ended.ru_stime + running.user + running.system

    @property
    def used(self) -> float:
        """The share so far."""
        return (self._spent() - self._before) / max(time.monotonic() - self._began, 1e-9)

    def pause(self) -> float:
        """Seconds to rest, to come down to the share."""
        return max((self._spent() - self._before) / self.share - (time.monotonic() - self._began), 0)


def held_on_disk(*folders: Path, without: tuple[str, ...] = ()) -> float:
    """Size in kB of all files below the folders, but for what lies directly in one of them by one of these names."""
    total = 0
    for folder in folders:
        for place, below, names in os.walk(folder):
            if Path(place) == folder:
                below[:] = [name for name in below if name not in without]
                names = [name for name in names if name not in without]
            for name in names:
                with suppress(FileNotFoundError):  # a temporary file
                    total += os.stat(os.path.join(place, name)).st_size
    return total / 1e3


def write_samples(path: Path, rows: list[tuple[float, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", *BOUNDS), *rows])


def write_records(folder: Path) -> None:
    """One record and one picture of all runs whose files are in the folder."""
    records: dict[str, Any] = {}
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained", sharex=True)
    for path in sorted(folder.glob("*_samples.csv")):
        name = path.stem.removesuffix("_samples")
        records[name] = json.loads((folder / f"{name}.json").read_text())
        columns = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
        for axis, values in zip(axes.flat, columns[1:], strict=True):
            axis.plot(columns[0] / 60, values, label=f"uniad {name}", linewidth=1)
    for axis, bound in zip(axes.flat, BOUNDS.values(), strict=True):
        axis.set(title=bound.title, xlabel="minutes", ylim=(0, 1.15 * max(axis.get_ylim()[1], 1)))
    axes.flat[0].legend()
    figure.savefig(folder / "endurance.png", dpi=100)
    plt.close(figure)
    (folder / "endurance.json").write_text(json.dumps(records, indent=2) + "\n")
