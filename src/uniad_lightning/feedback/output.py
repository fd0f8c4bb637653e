"""The folder that a change is written to: a new one, or that of an earlier feedback, never that of another run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniad_lightning.errors import InputError
from uniad_lightning.files.within import is_within
from uniad_lightning.results.output_folder import hold
from uniad_lightning.results.run_folder import claim
from uniad_lightning.results.written_files import written

DECISIONS = "decisions.csv"  # by which the folder of an earlier feedback is known


def refuse_output(folder: Path, *, overwrite: bool, checkpoint: str) -> None:
    """Raises InputError where `folder` holds the `checkpoint` that a change starts from, or files of another command.

    The same for the result of an earlier feedback without `overwrite`.
    """
    if is_within(folder, checkpoint):
        raise InputError(
            f"output={folder}: holds {checkpoint}, which the change starts from and which stays as it is; choose "
            "another output"
        )
    names = written(folder)
    if names and DECISIONS not in names:
        raise InputError(
            f"output={folder}: holds {names[0]}, which is not of an earlier uniad feedback; choose another output"
        )
    if names and not overwrite:
        raise InputError(
            f"output={folder}: holds the result of an earlier uniad feedback; choose another output, or overwrite=true"
        )


@contextmanager
def held_output(folder: Path, *, overwrite: bool, checkpoint: str) -> Iterator[None]:
    """Hold `folder`, empty of what an earlier feedback has written; InputError as `refuse_output`, with its key."""
    try:
        with hold(folder):
            refuse_output(folder, overwrite=overwrite, checkpoint=checkpoint)
            claim(folder, overwrite=overwrite)
            yield
    except InputError as error:
        raise InputError(str(error).replace("output_dir", "output")) from None
