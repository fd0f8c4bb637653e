"""What `/metrics` tells Prometheus, of one worker or, through files, of all."""

import os
from collections import defaultdict, deque
from contextlib import suppress
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from uniad_lightning.inspection.result import Inspection

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the folder through which workers add up; prometheus_client reads it
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_RECENT = 500  # images of a product, whose median score is compared


class Metrics:
    """Counters and gauges of one worker. Label values are decisions and categories of the training: few."""

    def __init__(self) -> None:
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
            "uniad_score_drift",
            f"Median score of the last {_RECENT} images, in spreads of the calibration: 0 as there, 1 at the boundary",
            ["product"],
            registry=own,
            multiprocess_mode="livemostrecent",
        )
        self._scores: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))

    def count(self, inspection: Inspection) -> None:
        """Count an inspected image."""
        product = inspection.category or ""
        self.images.labels(inspection.decision or "", product).inc()
        if inspection.familiar is False:
            self.unfamiliar.inc()
        if inspection.boundary is not None:
            scores = self._scores[product]
            scores.append(inspection.score)
            edge = inspection.boundary
            self.drift.labels(product).set((float(np.median(scores)) - edge.score) / edge.spread + 1)

    def start_again(self) -> None:
        """Forget the scores of another checkpoint: they have another scale."""
        self._scores.clear()

    def text(self) -> bytes:
        """The text format of Prometheus."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        _forget_dead(Path(os.environ[SHARED]))
        shared = CollectorRegistry()
        MultiProcessCollector(shared)
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
