"""What `/metrics` of `uniad serve` says of drift, before, in and after it."""

import os
import shutil

import pytest

from support.servers import InThread, wait_until
from uniad_lightning import Detector


def test_metrics_say_when_a_product_drifts_and_begin_anew_with_another_checkpoint(checkpoint, more, capfd, tmp_path):
    own = shutil.copy(checkpoint, tmp_path / "own.ckpt")
    good, dark = more
    with InThread(own, "drift_window=50", "reload_every=0.1") as server:
        results = [server.predict(path) for path in good[:50]]
        assert {result["category"] for result in results} == {"bottle"}
        assert server.metric('uniad_drift{product="bottle"}') == 0
        calibration = Detector.load(own, device="cpu").calibration
        known, edge = calibration.baselines["bottle"], calibration.categories["bottle"]
        scores = sorted(result["score"] for result in results)
        shift = (scores[25] - known.median) / edge.spread
        assert server.metric('uniad_score_drift{product="bottle"}') == pytest.approx(shift, abs=1e-4)
        ratio = (scores[37] - scores[12]) / (known.high - known.low)
        assert server.metric('uniad_score_range{product="bottle"}') == pytest.approx(ratio, abs=1e-4)
        strange = sum(result["familiar"] is False for result in results) / 50
        assert server.metric('uniad_unfamiliar_share{product="bottle"}') == strange
        for path in dark[:50]:
            server.predict(path)
        assert server.metric('uniad_drift{product="bottle"}') == 1
        (said,) = [line for line in capfd.readouterr().err.splitlines() if "has drifted" in line]
        assert said.startswith("uniad: drift: bottle has drifted: of the last 50 images ")
        shutil.copy(checkpoint, tmp_path / "new.ckpt")
        os.replace(tmp_path / "new.ckpt", own)
        wait_until(lambda: server.metric('uniad_reloads_total{outcome="done"}') == 1)
        assert server.metric('uniad_drift{product="bottle"}') == 0
        server.predict(dark[0])
        assert server.metric('uniad_drift{product="bottle"}') == 0


def test_an_image_of_a_model_that_was_replaced_meanwhile_is_counted_but_not_compared(checkpoint, more):
    good, _ = more
    with InThread(checkpoint, "drift_window=50") as server:
        inspector = server.server.config.app.state.inspector
        inspection = inspector.model.detector.predict(good[0])
        for _ in range(60):
            inspector.metrics.count(inspection, compared=False)
        assert server.metric('uniad_images_total{decision="good",product="bottle"}') == 60
        assert 'uniad_score_drift{product="bottle"}' not in server.client.get("/metrics").text
