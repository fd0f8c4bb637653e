"""From a folder that a command has written to what a page shows of it."""

from pathlib import Path

from uniad_lightning.errors import InputError
from uniad_lightning.report.content import ReportedRun
from uniad_lightning.report.labelled import read_test
from uniad_lightning.report.predictions import read_predictions
from uniad_lightning.results.run_folder import CALIBRATION, CONFIG, JOURNAL, LAST, TEST_SCORES

_EXPECTED = "expected a folder of uniad train, evaluate, calibrate or predict"


def read_run(folder: Path, *, maps: bool) -> ReportedRun:
    """What the run in `folder` has left: its scores, boundaries and settings; with `maps` its detector has to be there.

    Raises InputError, each naming the folder or the file, for what is no run, has no scores, or is damaged.
    """
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; {_EXPECTED}")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; {_EXPECTED}")
    if (folder / JOURNAL).is_file():
        return read_predictions(folder)
    if (folder / TEST_SCORES).is_file():
        return read_test(folder, maps=maps)
    if any((folder / name).exists() for name in (CONFIG, CALIBRATION, LAST)):
        raise InputError(
            f"{folder}: has no scores ({TEST_SCORES}), since its run has not ended or is of an earlier version; "
            f"uniad evaluate ckpt_path=... output_dir=... writes them"
        )
    raise InputError(f"{folder}: holds no run ({TEST_SCORES} or {JOURNAL} is not in it); {_EXPECTED}")
