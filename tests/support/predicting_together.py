"""Inspecting images as several processes of `uniad predict` do, with a thread in the place of each."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from support.stand_in import StandIn
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.processes import Processes
from uniad_lightning.prediction.sources.opening import open_source


def meeting(count):
    """Processes of `count` threads."""
    barrier, values = threading.Barrier(count, timeout=60), [None] * count

    def exchange(rank, value):
        values[rank] = value
        try:
            barrier.wait()
        except threading.BrokenBarrierError:
            raise RuntimeError("Connection closed by peer") from None
        found = list(values)
        with suppress(threading.BrokenBarrierError):  # by one that has this value and ended since
            barrier.wait()
        return found

    def member(rank):
        return Processes(rank=rank, count=count, local_rank=rank, exchange=lambda value: exchange(rank, value))

    return [member(rank) for rank in range(count)], barrier


def predict(word, folder, count, *, detectors=None, sources=None, batch_size=3, **settings):
    """All of `uniad predict` in `count` processes but the command line; what became of each."""
    processes, barrier = meeting(count)
    detectors = detectors or [StandIn() for _ in processes]

    def work(process):
        source = sources[process.rank] if sources else open_source(str(word), without=folder)
        with process.agreed():
            whole = PredictionWriter(folder, overlays="none", settings={}, **settings) if process.first else None
        try:
            with PartWriter(folder, processes=process, whole=whole, overlays="none") as writer:
                return predict_all(
                    detectors[process.rank], source, writer, batch_size=batch_size, workers=2, show=False
                )  # fmt: skip
        except BaseException as error:  # the process ends, and its connections with it
            barrier.abort()
            return error
        finally:
            if whole is not None:
                whole.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, processes))
