"""CIFAR-10: both versions of its files, nothing run that a pickle asks for, and the many-against-many setting."""

import csv
import io
import json
import os
import pickle
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from support.paths import SHARED
from support.settings import SMALL
from support.trees import cifar10_arrays, cifar10_binary, cifar10_python
from uniad_lightning.data.images.cifar10_batches import load_batch, read_packed
from uniad_lightning.data.layouts.cifar10 import CLASSES, list_cifar10, read_cifar10
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError

REAL = SHARED / "data" / "cifar10_jpeg.npz"


@pytest.fixture(autouse=True)
def forget_batches():
    """Tests rewrite files that the reader would remember."""
    load_batch.cache_clear()


def batch(**changes):
    images, labels = cifar10_arrays(20, seed=0)
    return {"data": images, "labels": labels.tolist(), "batch_label": "one", "filenames": ["a"] * 20, **changes}


def refusal(tmp_path, content):
    folder = tmp_path / "cifar-10-batches-py"
    if not folder.exists():
        cifar10_python(tmp_path)
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError) as error:
        list_cifar10(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{folder / 'data_batch_2'}: not a CIFAR-10 batch (")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", [cifar10_python, cifar10_binary])
@pytest.mark.parametrize("inside", [True, False])
def test_both_versions_hold_the_same_images(tmp_path, write, inside):
    folder = write(tmp_path)
    root = next(folder.iterdir()) if inside else folder
    images, labels = read_cifar10(root, "train")
    expected = [cifar10_arrays(20, seed=i) for i in range(5)]
    assert np.array_equal(labels, np.concatenate([labels for _, labels in expected]))
    rows = np.concatenate([rows for rows, _ in expected])
    assert np.array_equal(images[:, 3, 5, 1], rows[:, 1024 + 3 * 32 + 5])
    assert images.shape == (100, 32, 32, 3)

    splits = list_cifar10(root)
    assert splits.categories == CLASSES
    assert len(splits.train) == 100
    assert len(splits.test) == 20
    assert {record.label for record in splits.train + splits.test} == {0}
    assert [record.category for record in splits.train] == sorted(record.category for record in splits.train)
    one = next(record for record in splits.train if record.image.file.stem == "data_batch_3")
    shown, labels = cifar10_arrays(20, seed=2)
    assert one.category == CLASSES[labels[one.image.position]]
    assert np.array_equal(read_packed(one.image), shown[one.image.position].reshape(3, 32, 32).transpose(1, 2, 0))
    assert one.image.name == f"{one.image.file.name}#{one.image.position}"


def test_some_classes_alone(tmp_path):
    splits = list_cifar10(cifar10_python(tmp_path), categories=["ship", "cat"])
    assert splits.categories == ("cat", "ship")
    file = tmp_path / "cifar-10-batches-py" / "test_batch"
    assert splits.test[0] == Record(Packed(file, 3), (), "cat", "good", 0)
    assert {record.category for record in splits.train} == {"cat", "ship"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_a_plain_batch_is_read(tmp_path, protocol):
    folder = cifar10_python(tmp_path) / "cifar-10-batches-py"
    texts = ["a", "", b"b", b"", 1.5, None]
    wrapped = batch(data=np.asfortranarray(batch()["data"]), labels=np.arange(20) % 10, filenames=texts)
    for labels in (wrapped["labels"], wrapped["labels"].tolist(), list(wrapped["labels"])):
        load_batch.cache_clear()
        (folder / "data_batch_1").write_bytes(pickle.dumps({**wrapped, "labels": labels}, protocol=protocol))
        images, found = read_cifar10(tmp_path, "train")
        assert found[:20].tolist() == list(range(10)) * 2
        assert np.array_equal(images[:20, 0, 0, 0], wrapped["data"][:, 0])


def test_a_batch_written_by_python_2_is_read(tmp_path):
    """As the published files are: protocol 2, NumPy's old module names, all data as one byte string."""
    images, labels = cifar10_arrays(20, seed=0)
    raw = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x14M\x00\x0c\x86cnumpy\ndtype\n"
        b"U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    numbers = b"".join(b"K" + bytes([label]) for label in labels.tolist())
    content = b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + numbers + b"eu."
    folder = cifar10_python(tmp_path) / "cifar-10-batches-py"
    (folder / "data_batch_1").write_bytes(content)
    found, found_labels = read_cifar10(tmp_path, "train")
    assert np.array_equal(found[:20].transpose(0, 3, 1, 2).reshape(20, -1), images)
    assert np.array_equal(found_labels[:20], labels)


class Malicious:
    """Writes a file when it is unpickled as pickle would."""

    def __init__(self, path, protocol_call=os.system):
        self.call = (protocol_call, (f"touch {path}",))

    def __reduce__(self):
        return self.call


def test_a_malicious_batch_runs_nothing(tmp_path):
    proof = tmp_path / "ran"
    content = pickle.dumps(batch(filenames=Malicious(proof)))
    pickle.loads(content)
    assert proof.exists(), "the attack must be one"
    proof.unlink()
    assert "it asks for posix.system" in refusal(tmp_path, content)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.array([print, 1], dtype=object), "'O8'"),
        (Path("x"), "it asks for"),
        (np.random.default_rng(0), "it asks for"),
        (slice(3), "it asks for builtins.slice"),
        ({1, 2}, "it asks for builtins.set"),
        (1j, "it asks for builtins.complex"),
    ],
    ids=str,
)
def test_anything_but_plain_data_is_refused(tmp_path, value, said):
    assert said in refusal(tmp_path, pickle.dumps(batch(filenames=value), protocol=2 if said != "'O8'" else 4).replace(
        b"__builtin__", b"builtins"
    ))  # fmt: skip


def test_the_state_of_what_reads_the_file_cannot_be_set(tmp_path):
    whole = pickle.dumps(batch(), protocol=2)
    for name in (b"numpy._core.numeric\n_frombuffer", b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode"):
        # Fetch the class, set its state, drop it; then the batch.
        refusal(tmp_path, b"\x80\x02c" + name + b"\n}U\x01aK\x01sb0" + whole[2:])
    assert "refers to something outside" in refusal(tmp_path, b"Psecret\n.")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_batch_is_refused(tmp_path, share):
    whole = pickle.dumps(batch())
    assert refusal(tmp_path, whole[: int(share * len(whole))]).endswith("); download the data set again")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a pickle", "download the data set again"),
        (pickle.dumps([1, 2]), "no 'data' and 'labels'"),
        (pickle.dumps({"data": b"", "labels": []}), "no array"),
        (pickle.dumps(batch(labels=[0] * 19)), "19 labels"),
        (pickle.dumps(batch(labels=[10] * 20)), "from 0 to 9"),
        (pickle.dumps(batch(labels=["cat"] * 20)), "from 0 to 9"),
        (pickle.dumps(batch(labels=[[1]] * 20)), "from 0 to 9"),
        (pickle.dumps(batch(labels=np.zeros((20, 1), np.int64))), "from 0 to 9"),
        (pickle.dumps(batch(), protocol=2).replace(b"X\x01\x00\x00\x00|", b"X\x02\x00\x00\x00O,"), "order 'O,'"),
        (pickle.dumps(batch(data=np.zeros((20, 3000), np.uint8))), "(20, 3000)"),
        (pickle.dumps(batch(data=np.zeros((20, 3072), np.float32))), "float32"),
    ],
)
def test_other_content_is_refused(tmp_path, content, said):
    assert said in refusal(tmp_path, content)


def test_a_binary_batch_that_is_cut_or_of_other_classes_is_refused(tmp_path):
    path = cifar10_binary(tmp_path) / "cifar-10-batches-bin" / "data_batch_4.bin"
    whole = path.read_bytes()
    for content, said in ((whole[:-1], "multiple of 3073"), (b"", "0 bytes"), (b"\x0a" + whole[1:], "from 0 to 9")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            list_cifar10(tmp_path)


def test_a_missing_batch_and_a_wrong_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="holds neither cifar-10-batches-py nor cifar-10-batches-bin"):
        list_cifar10(tmp_path)
    (cifar10_python(tmp_path) / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(InputError, match="test_batch: not found"):
        list_cifar10(tmp_path)


@pytest.mark.slow
def test_the_command_line_trains_five_classes_against_five(tmp_path, uniad):
    cifar10_binary(tmp_path / "cifar", count=40)
    settings = [*SMALL, "data.image_size=32", "model.grid=[4,4]", "data.normal_classes=02468", "trainer.max_epochs=1"]
    status, out, err = uniad(
        "train", "experiment=cifar10", *settings, f"data.root={tmp_path}/cifar", "backbone.levels=[1,2]",
        f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0, err
    assert "image_auroc over 5" in out
    with (tmp_path / "run" / "results.csv").open() as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    normal, other = set(CLASSES[::2]), set(CLASSES[1::2])
    assert {name for name in CLASSES if rows[name]["image_auroc"] == "nan"} == normal
    assert all(row["pixel_auroc"] == "nan" for row in rows.values())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= metrics["pooled"]["image_auroc"] <= 1
    assert metrics["pooled"]["aupro"] is None
    assert metrics["mean"]["image_auroc"] == pytest.approx(
        np.mean([metrics["categories"][name]["image_auroc"] for name in other])
    )

    status, out, err = uniad(
        "evaluate", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", "save_maps=true", f"output_dir={tmp_path}/maps"
    )
    assert status == 0, err
    maps = [np.load(path) for path in (tmp_path / "maps" / "maps").glob("*.npz")]
    score = {name: [float(m["score"]) for m in maps if str(m["category"]) == name] for name in CLASSES}
    assert all(float(m["score"]) == pytest.approx(float(m["map"].mean()), rel=1e-5) for m in maps)
    good = sum((score[name] for name in normal), [])
    for names, row in (([name], metrics["categories"][name]) for name in other):
        bad = sum((score[name] for name in names), [])
        expected = roc_auc_score([0] * len(good) + [1] * len(bad), good + bad)
        assert row["image_auroc"] == pytest.approx(expected, abs=1e-6)
    bad = sum((score[name] for name in other), [])
    pooled = roc_auc_score([0] * len(good) + [1] * len(bad), good + bad)
    assert metrics["pooled"]["image_auroc"] == pytest.approx(pooled, abs=1e-6)
    assert "#" in str(maps[0]["path"])


def test_the_command_line_refuses_a_malicious_batch_in_one_line(tmp_path, uniad):
    folder = cifar10_python(tmp_path) / "cifar-10-batches-py"
    (folder / "data_batch_5").write_bytes(pickle.dumps(batch(filenames=Malicious(tmp_path / "ran"))))
    status, _, err = uniad(
        "train", "experiment=cifar10", *SMALL, "data.image_size=32", "model.grid=[4,4]", "backbone.levels=[1,2]",
        f"data.root={tmp_path}", f"output_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 2
    assert f"{folder / 'data_batch_5'}: not a CIFAR-10 batch (it asks for posix.system)" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data/cifar10_jpeg.npz")
def test_the_real_files_as_unpacked_are_read(tmp_path):
    script = REAL.with_name("unpack_cifar10.py")
    argv, sys.argv = sys.argv, [str(script), str(tmp_path), "--per-class", "20"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = argv
    splits = list_cifar10(tmp_path)
    assert splits.categories == CLASSES
    assert len(splits.train) == len(splits.test) == 200
    real = np.load(REAL)
    record = splits.test[0]
    assert (record.category, record.label) == ("airplane", 0)
    airplanes = np.flatnonzero(real["test_label"] == 0)
    offsets = real["test_offset"]
    jpegs = (real["test_jpeg"][offsets[i] : offsets[i + 1]].tobytes() for i in airplanes[:20])
    shown = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs]
    assert any(np.array_equal(read_packed(record.image), image) for image in shown)


@pytest.mark.parametrize("place", [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"])
def test_a_value_remembered_at_a_far_place_takes_no_memory(tmp_path, place):
    """Python's own unpickler would make a table of as many places, 8 bytes each, for a file of ten bytes."""
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}r" + place + b".")
    with pytest.raises(InputError, match="it remembers a value at place"):
        load_batch(tmp_path / "data_batch_1")
