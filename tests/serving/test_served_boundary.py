"""`uniad serve boundary=...` decides by it, also where the request names a category."""

import pytest

from support.servers import InThread
from uniad_lightning import Detector


def test_a_given_boundary_decides_what_is_served(checkpoint, pictures):
    own = Detector.load(checkpoint, device="cpu")
    score = own.predict(pictures[0]).score
    for word, decision in ((f"boundary={score - 1e-3}", "defective"), (f"boundary={score + 1e-3}", None)):
        with InThread(checkpoint, word) as server:
            for more in ({}, {"params": {"category": "cable"}}):
                result = server.predict(pictures[0], **more)
                assert result["score"] == pytest.approx(score, abs=1e-5)
                assert (result["decision"] == "defective") == (decision == "defective")
                assert (result["normalised_score"] > 0.5) == (decision == "defective")
