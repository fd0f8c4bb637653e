"""What is done with every trained run, whatever its method."""

import csv


def use(uniad, trained, tree, folder):
    """Evaluate, calibrate and predict with the run `trained` on `tree`, in `folder`; all has to succeed."""
    last = trained / "checkpoints/last.ckpt"
    for command, *more in (("evaluate",), ("calibrate", "rate=0.3"), ("predict", f"input={tree}/bottle/test")):
        status, _, err = uniad(command, f"ckpt_path={last}", f"output_dir={folder}/{command}", *more)
        assert status == 0, err
    assert (folder / "evaluate/results.csv").read_text() == (trained / "results.csv").read_text()
    with (folder / "predict/predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
