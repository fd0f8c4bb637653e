"""What `/metrics` tells Prometheus, of one worker or, through files, of all."""

import os
import struct
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from uniad_lightning.drift.monitor import DRIFT, UNKNOWN, Monitor, Product
from uniad_lightning.errors import print_stderr
from uniad_lightning.inspection.boundary import Boundary
from uniad_lightning.inspection.result import Inspection

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the folder through which workers add up; prometheus_client reads it
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


_OF_WINDOW = {
    "score_drift": "Median score of the last images less the calibration's, in spreads of the boundary",
    "score_range": "Interquartile range of the last scores, of the calibration's",
    "unfamiliar_share": "Of the last images",
}


class Metrics:
    """Counters and gauges of one worker. Label values are decisions and categories of the training: few.

    `monitor` compares the images of each product with the calibration's.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("uniad_requests", "Answers of /predict", ["status"], registry=own)
        self.seconds = Histogram("uniad_request_seconds", "Of /predict", registry=own, buckets=_SECONDS)
        self.images = Counter("uniad_images", "Inspected images", ["decision", "product"], registry=own)
        self.unfamiliar = Counter("uniad_unfamiliar_images", "Resemble no product of the training", registry=own)
        self.batches = Histogram("uniad_batch_images", "Images of a batch", registry=own, buckets=_IMAGES)
        self.queue = Gauge("uniad_queue_images", "Accepted images", registry=own, multiprocess_mode="livesum")
        self.limit = Gauge("uniad_queue_limit", "More get status 503", registry=own, multiprocess_mode="livesum")
        self.reloads = Counter("uniad_reloads", "Changes of the checkpoint", ["outcome"], registry=own)
        self.drift = Gauge(
            "uniad_drift", "1: the last images are unlike the calibration's", ["product"], registry=own,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self.of_window = {
            name: Gauge(f"uniad_{name}", meaning, ["product"], registry=own, multiprocess_mode="livemostrecent")
            for name, meaning in _OF_WINDOW.items()
        }
        self._compare_by(monitor)

    def count(self, inspection: Inspection, *, compared: bool) -> None:
        """Count an inspected image; `compared` unless a checkpoint that was replaced meanwhile has inspected it."""
        product = inspection.category or ""
        self.images.labels(inspection.decision or "", product).inc()
        if inspection.familiar is False:
            self.unfamiliar.inc()
        if not compared:
            return
        change = self._monitor.add(product, inspection.score, familiar=inspection.familiar)
        if change is not None and change.sentence:
            with suppress(OSError):  # of a terminal that is closed
                print_stderr(f"drift: {change.sentence}")
        self._show(self._monitor.product(product), inspection.boundary)

    def _show(self, own: Product, boundary: Boundary | None) -> None:
        """Set the gauges of a product, those that its baseline and its `boundary` allow."""
        if own.baseline is None or boundary is None:
            return
        found, known = own.statistics(), own.baseline
        if own.state != UNKNOWN:
            self.drift.labels(own.name).set(own.state == DRIFT)
        values = {
            "score_drift": (found.median - known.median) / boundary.spread,
            "score_range": found.interquartile_range / (known.high - known.low or boundary.spread),
            "unfamiliar_share": found.unfamiliar_share,
        }
        for name, value in values.items():
            self.of_window[name].labels(own.name).set(value)

    def start_again(self, monitor: Monitor) -> None:
        """Compare with another checkpoint, whose scores have another scale; what was found before is over."""
        for name in self._monitor.products:
            self.drift.labels(name).set(0)
        self._compare_by(monitor)

    def _compare_by(self, monitor: Monitor) -> None:
        self._monitor = monitor
        for line in monitor.warnings:
            with suppress(OSError):
                print_stderr(f"warning: {line}")

    def text(self) -> bytes:
        """The text format of Prometheus."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        _forget_dead(Path(os.environ[SHARED]))
        shared = CollectorRegistry()
        MultiProcessCollector(shared)
        try:
            return generate_latest(shared)
        except struct.error:  # another worker has just made a file of its own, which is empty for a moment
            return generate_latest(shared)


def _forget_dead(folder: Path) -> None:
    """Leave out the gauges of workers that were killed; their counts stay."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another worker does the same
                mark_process_dead(pid)
        except PermissionError:
            pass
