"""A damaged checkpoint is refused in one line, and so is a file that is none; a sound one loads."""

import copy
import pickle
import zipfile
from io import BytesIO

import pytest
import torch

from support.checkpoints import Foreign
from support.pictures import damaged
from uniad_lightning.errors import InputError
from uniad_lightning.files import torch_file
from uniad_lightning.files.sealed import is_damaged, is_sealed
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.models.backbone.weights import read_weights
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint, update_checkpoint

CONTENT = {
    "format": 2,
    "config": {"model": {"hidden_dim": 32}, "name": "gehäuse"},
    "state_dict": {f"layer{i}": torch.randn(8, 40, generator=torch.Generator().manual_seed(i)) for i in range(20)},
    "loops": {"epoch": 3},
    "calibration": {"overall": {"score": 0.123456789}, "categories": {}},
}


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "sealed.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


@pytest.fixture
def old(tmp_path):
    """As it was written before there was a digest."""
    path = tmp_path / "old.ckpt"
    torch.save(CONTENT, path)
    return path


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize("kind", ["sealed", "old"])
def test_a_damaged_checkpoint_is_refused_or_is_the_same(kind, tmp_path, request):
    content = request.getfixturevalue(kind).read_bytes()
    path, refused, count = tmp_path / "x.ckpt", [], 350
    for number, changed in enumerate(damaged(content, count)):
        path.write_bytes(changed)
        try:
            found = load_checkpoint(str(path))
        except InputError as error:
            refused.append(str(error))
        else:
            assert same(found, CONTENT), number
    assert len(refused) > 0.9 * count
    assert all(line.startswith(f"ckpt_path={path}: ") and "\n" not in line for line in refused)
    assert not any("weights_only" in line for line in refused)


def test_every_bit_of_a_digest_and_of_what_it_covers_counts(sealed):
    content = sealed.read_bytes()
    for place in (*range(0, len(content), 997), *range(len(content) - 64, len(content))):
        changed = bytearray(content)
        changed[place] ^= 1
        assert is_damaged(BytesIO(changed)), place


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_whole(sealed, tmp_path, monkeypatch, moment):
    """As the last one of a training that runs."""
    larger = {**CONTENT, "more": torch.zeros(5000)}
    AtomicCheckpointIO().save_checkpoint(larger, tmp_path / "new.ckpt")
    refuse_packed = torch_file._refuse_packed

    def replaced(*given):
        if moment == "after":
            refuse_packed(*given)
        (tmp_path / "new.ckpt").replace(sealed)
        if moment == "before":
            refuse_packed(*given)

    with monkeypatch.context() as patched:
        patched.setattr(torch_file, "_refuse_packed", replaced)
        assert same(load_checkpoint(str(sealed)), CONTENT)
    assert same(load_checkpoint(str(sealed)), larger)


def test_other_programs_read_a_checkpoint_with_a_digest_as_before(sealed, tmp_path):
    assert is_sealed(sealed)
    assert same(torch.load(sealed, weights_only=True), CONTENT)
    assert same(torch.load(sealed, weights_only=True, mmap=True), CONTENT)
    with zipfile.ZipFile(sealed) as archive:
        assert archive.testzip() is None
    torch.save(torch.load(sealed, weights_only=True), tmp_path / "again.ckpt")
    assert same(load_checkpoint(str(tmp_path / "again.ckpt")), CONTENT)


def test_a_checkpoint_without_a_digest_loads_and_gets_one_when_it_is_written(old):
    assert not is_sealed(old)
    assert same(load_checkpoint(str(old)), CONTENT)
    update_checkpoint(str(old), familiarity={"boundary": 0.5})
    assert is_sealed(old)
    assert not is_damaged(BytesIO(old.read_bytes()))
    assert same(load_checkpoint(str(old)), {**CONTENT, "familiarity": {"boundary": 0.5}})


def write(path, kind, sound):
    content = {
        "text": b"no checkpoint",
        "empty": b"",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "half": sound[: len(sound) // 2],
        "settings": b"callbacks:\n  best: 1\n",
        "pickle": pickle.dumps({"a": 1}),
        "code": b"cos\nsystem\n(S'touch /tmp/never'\ntR.",
    }
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "x")
    elif kind == "object":
        torch.save({**copy.copy(CONTENT), "callbacks": Foreign()}, path)
    elif kind == "program":
        program = torch.export.export(torch.nn.Identity(), (torch.zeros(2),))
        torch.export.save(program, path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "cannot be read as a checkpoint; it is not a file of torch.save"),
        ("empty", "cannot be read as a checkpoint; it is empty"),
        ("picture", "cannot be read as a checkpoint; it is an image"),
        ("settings", "cannot be read as a checkpoint; it is a YAML file"),
        ("half", "it is incomplete, its end is missing"),
        ("pickle", "cannot be read as a checkpoint; it is "),
        ("code", "holds an object of os.system, more than"),
        ("archive", "it is another ZIP archive"),
        (
            "object",
            "holds an object of support.checkpoints.Foreign, more than tensors and plain values, and",
        ),
        ("program", "it is a program of torch.export"),
    ],
)
def test_a_file_that_is_none_is_named_for_what_it_is(kind, said, sealed, tmp_path):
    path = tmp_path / {"program": "x.pt2", "settings": "x.yaml"}.get(kind, "x.ckpt")
    write(path, kind, sealed.read_bytes())
    for load in (lambda: load_checkpoint(str(path)), lambda: Detector.load(path), lambda: read_weights(str(path))):
        with pytest.raises(InputError) as refused:
            load()
        line = str(refused.value)
        assert (
            said.replace("a checkpoint", "a file of weights" if line.startswith(str(path)) else "a checkpoint") in line
        )
        assert "\n" not in line
        assert not any(word in line for word in ("weights_only", "trusted source", "add_safe_globals", "arbitrary"))


def test_a_folder_is_called_a_folder(sealed, tmp_path):
    with pytest.raises(InputError, match=f"ckpt_path={tmp_path}: is a folder, and no run folder"):
        Detector.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    sealed.rename(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(InputError, match=f"is a folder; expected {tmp_path}/checkpoints/last.ckpt"):
        load_checkpoint(str(tmp_path))
