"""The place where commands are run whole, ended and run two at once."""

import pytest

from support.ended_commands import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    import uniad_lightning.calibration.after_training
    import uniad_lightning.exporting.export
    import uniad_lightning.prediction.predict
    import uniad_lightning.sweeps.search
    import uniad_lightning.training.evaluate
    import uniad_lightning.training.precompute_features  # noqa: F401 - what the forked processes need, once for all

    return Bench(tmp_path_factory.mktemp("ends"))
