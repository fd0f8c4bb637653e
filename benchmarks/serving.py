"""`uniad serve` against a loop over `Detector.predict`: images a second, and how long a request takes.

    python benchmarks/serving.py [CKPT] [--turns 3] [--images 192] [--device cpu] [--workers 1]

Without a checkpoint one is trained for a few steps on the demo's products: speed does not depend on what it learned.
Loop and servers (batches of up to 8, and none) take turns with 1, 8 and 64 clients, each sending the next image, a PNG,
when its last one is answered; the server is a process of its own. Ratio: images a second over those of the loop, which
reads the same files one after the other, and lists regions as the server does. Scores of both are first compared.
Where others use the machine, the processor's milliseconds per image say more than those of the clock.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import torch
from timing import Row, compare, machine, prove_equal

from uniad_lightning import Detector
from uniad_lightning.prediction.rows import inspection_fields

CLIENTS = (1, 8, 64)
MODES = {"batches": "max_batch=8", "no batches": "max_batch=1"}
HEADERS = {"Content-Type": "image/png"}
UNIAD = [sys.executable, "-m", "uniad_lightning.command_line.cli"]


@contextmanager
def served(checkpoint: Path, *words: str) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a server and its process, while it runs."""
    command = [*UNIAD, "serve", f"ckpt_path={checkpoint}", "port=0", "queue=256", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(" at ")[1].split(";")[0].split(",")[0]
            while True:
                try:
                    httpx.get(f"{address}/readyz", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate()


async def ask(address: str, contents: list[bytes], clients: int) -> tuple[list[float], list[float]]:
    """Seconds of each request, and the scores, of `contents` shared by so many clients."""
    seconds, scores, places = [0.0] * len(contents), [0.0] * len(contents), iter(range(len(contents)))

    async def one(client: httpx.AsyncClient) -> None:
        for place in places:
            began = time.perf_counter()
            answer = await client.post("/predict", content=contents[place])
            seconds[place] = time.perf_counter() - began
            scores[place] = answer.raise_for_status().json()["images"][0]["score"]

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, headers=HEADERS, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    return seconds, scores


def loop_over(detector: Detector, paths: list[Path]) -> list[float]:
    return [inspection_fields(detector.predict(path))["score"] for path in paths]


class Measured(NamedTuple):
    """Of one way to inspect all images: seconds of each turn, processor's seconds of each, seconds of each request."""

    turns: list[float]
    processor: list[float]
    requests: list[float]


def measured(
    checkpoint: Path, paths: list[Path], *, turns: int, device: str, workers: int
) -> tuple[Measured, dict[tuple[str, int], Measured]]:
    """The loop, and the servers by mode and clients; in each turn all of them."""
    detector = Detector.load(checkpoint, device=device)
    contents = [path.read_bytes() for path in paths]
    loop = Measured([], [], [])
    found = {(mode, clients): Measured([], [], []) for clients in CLIENTS for mode in MODES}
    with ExitStack() as servers:
        words = (f"device={device}", f"workers={workers}")
        running = {mode: servers.enter_context(served(checkpoint, word, *words)) for mode, word in MODES.items()}
        expected = torch.tensor(loop_over(detector, paths))
        for url, _ in running.values():  # warms them up, too
            prove_equal(torch.tensor(asyncio.run(ask(url, contents, 8))[1]), expected, "scores over HTTP")
        for _ in range(turns):
            before, began = time.process_time(), time.perf_counter()
            loop_over(detector, paths)
            loop.turns.append(time.perf_counter() - began)
            loop.processor.append(time.process_time() - before)
            for (mode, clients), own in found.items():
                url, process = running[mode]
                before, began = spent(process), time.perf_counter()
                own.requests.extend(asyncio.run(ask(url, contents, clients))[0])
                own.turns.append(time.perf_counter() - began)
                own.processor.append(spent(process) - before)
    return loop, found


def spent(process: psutil.Process) -> float:
    """Processor's seconds of a server and its workers."""
    times = [each.cpu_times() for each in (process, *process.children())]
    return sum(each.user + each.system for each in times)


def prepared(folder: Path) -> tuple[Path, list[Path]]:
    """A checkpoint of a few steps, and the pictures of its test split."""
    words = [
        "experiment=demo",
        "trainer=smoke",
        f"data.root={folder}/data",
        f"output_dir={folder}/run",
        "data.held_out=0.1",
    ]
    subprocess.run([*UNIAD, "train", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = folder / "run/checkpoints/last.ckpt"
    words = [f"ckpt_path={checkpoint}", f"output_dir={folder}/report"]
    subprocess.run([*UNIAD, "calibrate", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return checkpoint, sorted((folder / "data").glob("*/test/*/*.png"))


def rows(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, paths = prepared(Path(folder))
        count = 16 if quick else 192
        loop, found = measured(checkpoint, repeated(paths, count), turns=1 if quick else 3, device="cpu", workers=1)
    each = [seconds / count for seconds in loop.turns]
    return [
        compare(
            f"an image over HTTP, {clients} clients, {mode}: Detector in a loop", [s / count for s in own.turns], each
        )
        for (mode, clients), own in found.items()
    ]


def repeated(paths: list[Path], count: int) -> list[Path]:
    return [paths[place % len(paths)] for place in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--pictures", type=Path, help="a folder of PNG files, with a checkpoint")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.checkpoint is None:
            checkpoint, paths = prepared(Path(folder))
        else:
            checkpoint, paths = given.checkpoint, sorted(given.pictures.rglob("*.png"))
        paths = repeated(paths, given.images)
        loop, found = measured(checkpoint, paths, turns=given.turns, device=given.device, workers=given.workers)
    count, own = len(paths), statistics.median(loop.turns)
    processor = statistics.median(loop.processor)
    print(f"{machine()}\nloop: {count / own:.1f} images/s; an image takes {1000 * own / count:.1f} ms", end="")
    print(f", of the processor {1000 * processor / count:.1f}")
    print("| clients | batches of | images/s | of the loop's | p50 ms | p99 ms | processor ms |")
    print("|---|---|---|---|---|---|---|")
    for (mode, clients), by_http in found.items():
        middle, cuts = statistics.median(by_http.turns), statistics.quantiles(by_http.requests, n=100)
        most, busy = MODES[mode].split("=")[1], 1000 * statistics.median(by_http.processor) / count
        print(f"| {clients} | {most} | {count / middle:.1f} | {own / middle:.2f}", end=" | ")
        print(f"{1000 * cuts[49]:.0f} | {1000 * cuts[98]:.0f} | {busy:.1f} |")


if __name__ == "__main__":
    main()
