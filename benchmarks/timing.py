"""What the benchmarks share: runs in turn, and rows of a table of ratios."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]  # row, ours, opponent, ratio, low, high, target, unit


def in_turn(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each function, run A B A B ..., so that a busy machine slows all of them; warm them up before."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(name: str, ours: list[float], opponent: list[float], target: float | None = None, unit: str = "s") -> Row:
    """One row: medians, their ratio (larger = ours is better), and the ratio's range over the turns."""
    turns = [theirs / own for own, theirs in zip(ours, opponent, strict=True)]
    own, theirs = statistics.median(ours), statistics.median(opponent)
    spread = {"low": min(turns), "high": max(turns)}
    return {
        "row": name,
        "ours": own,
        "opponent": theirs,
        "ratio": theirs / own,
        **spread,
        "target": target,
        "unit": unit,
    }


def prove_equal(ours: torch.Tensor, opponent: torch.Tensor, name: str, tolerance: float = 1e-5) -> None:
    """Stops the benchmark where the two differ by more than `tolerance` of the largest value (or of 1, if smaller)."""
    ours, opponent = ours.detach(), opponent.detach()
    difference = float((ours - opponent).abs().max()) / max(float(opponent.abs().max()), 1.0)
    if not difference <= tolerance:
        raise SystemExit(f"{name}: ours and the opponent differ by {difference:.1e}; a benchmark compares equals")


def machine() -> str:
    """The machine in one line."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads{load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
