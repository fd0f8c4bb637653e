"""Files that cannot be used are found before the training, all at once, and sound ones are never refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pictures import png, tiff
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.data.checking import SHOWN, check_files, decode_all
from uniad_lightning.data.images.decoding import read_image, read_record
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
KINDS = {
    "a.png": {}, "a.jpg": {}, "a.bmp": {}, "a.tif": {}, "lzw.tif": {"compression": "tiff_lzw"}, "a.webp": {},
    "jpeg.tif": {"compression": "jpeg"}, "progressive.jpg": {"progressive": True}, "lossless.webp": {"lossless": True},
    "a.gif": {}, "a.ppm": {}, "a.jp2": {},
}  # fmt: skip


def good(path: Path) -> Record:
    return Record(path, (), "nut", "good", 0)


def decodes(read: Callable[..., object], *given: object) -> str:
    """What a reader says of a file; nothing where it takes it."""
    try:
        read(*given)
    except InputError as error:
        return str(error)
    return ""


def refusal(*records: Record) -> str:
    """The message of the refusal, checked to be one line."""
    with pytest.raises(InputError) as caught:
        check_files(records)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    try:
        Image.fromarray(PIXELS).save(path, **KINDS[request.param])
    except (OSError, ValueError) as error:  # what this Pillow was built without
        pytest.skip(str(error))
    return path


def test_a_sound_file_is_sound_whatever_lies_behind_it(whole: Path) -> None:
    check_files([good(whole)])
    for behind in (b"\0" * 100, b"\0" * 3, b"written by a camera"):
        longer = whole.with_stem(f"{whole.stem}{len(behind)}")
        longer.write_bytes(whole.read_bytes() + behind)
        try:
            read_image(longer)
        except InputError:
            continue
        check_files([good(longer)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_found_when_it_could_not_be_decoded(whole: Path, share: float) -> None:
    raw = whole.read_bytes()
    whole.write_bytes(raw[: round(share * len(raw))])
    said = [decodes(read_image, whole), decodes(check_files, [good(whole)])]
    assert said[0] == said[1]


def test_odd_files_are_sound_where_the_reader_takes_them(tmp_path: Path) -> None:
    files = [
        png(tmp_path / "deep.png", bytes(range(240)), size=(10, 12), depth=16, colour=0),
        tiff(tmp_path / "deep.tif", bytes(180), size=(10, 12), depth=12),
        tmp_path / "p.png", tmp_path / "cmyk.jpg", tmp_path / "1.bmp",
    ]  # fmt: skip
    Image.fromarray(PIXELS).convert("P").save(files[2])
    Image.fromarray(PIXELS).convert("CMYK").save(files[3])
    Image.fromarray(PIXELS).convert("1").save(files[4])
    check_files(map(good, files))


def test_masks_must_have_the_size_of_the_upright_image(tmp_path: Path) -> None:
    image, mask, lying = tmp_path / "i.jpg", tmp_path / "m.png", tmp_path / "lying.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(image, exif=exif)  # upright it is 56 high and 40 wide
    Image.new("L", (40, 56)).save(mask)
    Image.new("L", (56, 40)).save(lying)
    record = Record(image, (mask,), "nut", "dent", 1)
    check_files([record])
    message = refusal(record._replace(masks=(mask, lying)))
    assert message.startswith(f"{lying}: the mask has 40 x 56 pixels (height x width)")
    turned = tmp_path / "i.png"
    Image.fromarray(PIXELS).save(turned, exif=exif)
    for masks, sound in (((mask,), True), ((lying,), False)):
        record = Record(turned, masks, "nut", "dent", 1)
        if sound:
            check_files([record])
            read_record(record)
        else:
            assert "the mask has" in refusal(record)


def test_all_bad_files_are_named_up_to_twenty(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "t", train=30, size=(20, 20))
    splits = list_mvtec(root)
    marked, other, *_ = [record for record in splits.test if record.masks]
    bad = [record.image for record in splits.train[:23]] + [marked.masks[0]]
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    other.image.unlink()
    records = [*splits.train, *splits.test]
    message = refusal(*records)
    assert message.startswith("25 files cannot be used: ")
    assert message.endswith("; and 5 more")
    assert sum(f"{path}: " in message for path in bad) == SHOWN
    with pytest.raises(InputError) as caught:
        decode_all(records)
    assert str(caught.value) == message
    few = refusal(records[0], *records[-3:], marked, other)
    assert "3 files cannot be used" in few
    assert f"{other.image}: no such file" in few


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert f"{tmp_path / 'a.png'}: is a pipe" in refusal(good(tmp_path / "a.png"))
    assert str(tmp_path / "loop.png") in refusal(good(tmp_path / "loop.png"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate", "calibrate"])
def test_bad_test_images_and_masks_end_a_run_before_it_begins(uniad, copy, tmp_path, command):
    given = [*SMALL, f"data.root={copy}", "trainer.max_epochs=1", "data.held_out=0.2"]
    if command != "train":
        status, _, err = uniad("train", *given, f"output_dir={tmp_path}/before")
        assert status == 0, err
        given = [f"ckpt_path={tmp_path}/before/checkpoints/last.ckpt"]
    bad = [copy / "cable/test/good/000.png", copy / "bottle/ground_truth/scratch/000_mask.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:2000])
    Image.new("L", (10, 10), 255).save(bad[1])
    status, out, err = uniad(command, *given, f"output_dir={tmp_path}/run")
    assert status == 2
    (line,) = [line for line in err.splitlines() if line and not line.startswith("uniad: warning")]
    assert line.startswith("uniad: 2 files cannot be used: ")
    assert all(str(path) in line for path in bad)
    assert not (tmp_path / "run/checkpoints").exists()
    assert "epoch" not in out


@pytest.mark.slow
def test_what_is_found_after_the_training_leaves_it_and_says_how_to_go_on(uniad, copy, tmp_path):
    """Damage in the middle of a file shows when it is decoded."""
    bad = [copy / "cable/test/good/000.png", copy / "bottle/test/hole/000.png"]
    before = [path.read_bytes() for path in bad]
    for path, raw in zip(bad, before, strict=True):
        path.write_bytes(raw[:100] + bytes(200) + raw[300:])
    status, _, err = uniad("train", *SMALL, f"data.root={copy}", "trainer.max_epochs=1", f"output_dir={tmp_path}/run")
    assert status == 2
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("uniad: 2 files cannot be used: ")
    assert all(str(path) in line for path in bad)
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert f"the training is done and saved, continue with uniad evaluate ckpt_path={last}" in line
    for path, raw in zip(bad, before, strict=True):
        path.write_bytes(raw)
    status, _, err = uniad("evaluate", f"ckpt_path={last}", f"output_dir={tmp_path}/evaluated")
    assert status == 0, err
    for path, raw in zip(bad, before, strict=True):
        path.write_bytes(raw[:100] + bytes(200) + raw[300:])
    status, _, err = uniad("calibrate", f"ckpt_path={last}", "by=f1", f"output_dir={tmp_path}/calibrated")
    assert status == 2
    assert all(str(path) in err.splitlines()[-1] for path in bad)
