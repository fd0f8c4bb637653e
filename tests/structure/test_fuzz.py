"""A few hundred mutated files of every kind: read, or refused in one line; `make fuzz` tries 10,000."""

import numpy as np
import pytest

from support.fuzz_kinds import kinds_in
from support.fuzzing import KINDS, READ, REFUSED, end_of, mutated


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "case").mkdir()
    return kinds_in(folder), folder / "case"


def test_every_kind_is_tried_and_each_sound_file_is_read(kinds):
    found, folder = kinds
    assert set(found) == set(KINDS)
    for kind in found.values():
        for name, content in kind.sound.items():
            (folder / name).write_bytes(content)
            kind.read(folder / name)


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind != "ONNX"])
def test_mutated_files_are_read_or_refused(kinds, name):
    found, folder = kinds
    ends = [end_of(found[name], number, 7, folder) for number in range(40)]
    assert {*ends} <= {READ, REFUSED}, [(number, end) for number, end in enumerate(ends) if end not in (READ, REFUSED)]
    assert REFUSED in ends


def test_a_fault_is_found(kinds):
    """The search itself: a reader that fails in another way is reported with its place."""

    def fault(path):
        raise KeyError("x")

    found, folder = kinds
    assert end_of(found["image"]._replace(read=fault), 0, 7, folder).startswith("KeyError: ")


def test_a_case_can_be_repeated():
    content = bytes(range(256)) * 4
    one, again, other = (mutated(content, np.random.default_rng((7, number))) for number in (3, 3, 4))
    assert one == again
    assert one != other
