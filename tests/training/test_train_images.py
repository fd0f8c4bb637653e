"""A training is resumed on the images it was trained on, or not at all."""

import shutil
from pathlib import Path

import pytest
import torch

from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError
from uniad_lightning.training.train_images import image_names, pack_names, refuse_other_images, unpack_names


def good(path, category="nut", tile=None):
    return Record(Path(path), (), category, "good", 0, tile)


def records(*names, root="/data"):
    return [good(f"{root}/nut/train/good/{name}.png") for name in names]


def kept(trained, root="/data"):
    return {"images": pack_names(image_names(trained, Path(root)))}


def refused(checkpoint, now, root="/data", before=None):
    with pytest.raises(InputError) as error:
        refuse_other_images(checkpoint, before, now, Path(root), "last.ckpt")
    assert "\n" not in str(error.value)
    assert "init_from=last.ckpt" in str(error.value)
    return str(error.value)


def test_names_survive_packing():
    names = ["nut/a b.png", "nut/two\nlines.png", "gehäuse/ü.png", "nut/\udcff.png"]
    assert unpack_names(pack_names(names)) == names


def test_the_same_images_elsewhere_and_in_another_spelling_are_the_same():
    there = [good(f"/elsewhere/nut/train/good/{name}.png") for name in ("a", "u\u0308")]
    saved = kept(records("a", "\u00fc"))
    refuse_other_images(saved, None, there, Path("/elsewhere"), "last.ckpt")
    with pytest.raises(InputError, match="is gone"):
        refuse_other_images(saved, None, there[:1], Path("/elsewhere"), "last.ckpt")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (("a", "b", "c", "d"), "1 image is new (nut/train/good/d.png);"),
        (("a", "c"), "1 that it was trained on is gone (nut/train/good/b.png);"),
        (("a", "b", "d"), "1 image is new (nut/train/good/d.png) and 1 that it was trained on is gone"),
        (("a", "b", "c", "c"), "1 image is new (nut/train/good/c.png);"),
        (("w", "x", "y", "z"), "4 images are new (nut/train/good/w.png, nut/train/good/x.png, nut/train"),
        (("b", "a", "c"), "in another order"),
    ],
)
def test_images_that_came_went_or_changed_places_are_said(now, said):
    assert said in refused(kept(records("a", "b", "c")), records(*now))


def test_tiles_count_as_their_picture_and_packed_images_by_their_place():
    tiles = [good("/data/nut/a.png", tile=tile) for tile in range(4)]
    assert image_names(tiles, Path("/data")) == ["nut/a.png"]
    packed = [Record(Packed(Path("/data/batch_1"), place), (), "cat", "good", 0) for place in (0, 1)]
    assert "cat/batch_1#1" in refused(kept(packed), packed[:1])


def test_a_checkpoint_of_an_earlier_version_tells_numbers_alone():
    from uniad_lightning.data.selection import image_groups

    trained = records("a", "b", "c")
    before = {"trained": image_groups(records("o", "a"))}
    known = {"trained": torch.cat([image_groups(trained), before["trained"]]).unique()}
    refuse_other_images(known, before, trained, Path("/data"), "last.ckpt")
    assert "1 image is new (nut/train/good/d.png)" in refused(known, records("a", "b", "c", "d"), before=before)
    assert "1 that it was trained on is gone;" in refused(known, records("a", "b"), before=before)
    refuse_other_images({}, None, records("x"), Path("/data"), "last.ckpt")  # one of a still earlier version


def add(root):
    for number in range(10):
        shutil.copy(root / "bottle/train/good/000.png", root / f"bottle/train/good/9{number:02}.png")


def remove(root):
    (root / "cable/train/good/003.png").unlink()


def rename(root):
    (root / "cable/train/good/003.png").rename(root / "cable/train/good/003b.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add, "10 images are new (bottle/train/good/900.png, "),
        (remove, "1 that it was trained on is gone (cable/train/good/003.png)"),
        (rename, "1 image is new (cable/train/good/003b.png) and 1 that"),
    ],
)
def test_a_resumed_training_with_other_images_is_refused_and_init_from_goes_on(uniad, tmp_path, change, said):
    root = mvtec_tree(tmp_path / "data", train=9, size=(80, 72))
    words = [*SMALL, f"data.root={root}", "data.cache=off", "trainer.max_epochs=1"]
    last = tmp_path / "run/checkpoints/last.ckpt"
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    (tmp_path / "run/metrics.json").unlink()
    whole = last.read_bytes()
    change(root)
    resumed = [
        *words,
        f"ckpt_path={last}",
        f"output_dir={tmp_path}/run",
    ]
    status, _, err = uniad("train", *resumed)
    (line,) = [line for line in err.splitlines() if line.startswith("uniad: ") and "warning" not in line]
    assert status == 2
    assert said in line
    assert last.read_bytes() == whole
    status, _, err = uniad("train", *words, f"init_from={last}", f"output_dir={tmp_path}/new")
    assert status == 0, err
