"""Regions and tiles: seamless, whole, and the same in training, evaluation and prediction."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from support.settings import SMALL
from uniad_lightning.data.images.tiling import WHOLE, Framing, cut, pixels
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError
from uniad_lightning.scoring import upsample


def framing(**given):
    return Framing(**{"region": None, "tiles": 1, "overlap": 0.1, "ignore": None, **given})


@pytest.mark.parametrize("tiles", [(1, 2), (2, 3), (4, 4), (1, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5])
def test_tiles_cover_the_region_and_constant_maps_stay_constant(tiles, overlap):
    one = framing(tiles=tiles, overlap=overlap, region=[0.1, 0.2, 0.9, 1.0])
    seen = np.zeros((101, 203), dtype=int)
    for box in one.boxes:
        top, left, bottom, right = pixels(box, seen.shape)
        seen[top:bottom, left:right] += 1
    inside = cut(seen, one.region)
    assert inside.min() >= 1
    assert seen.sum() == inside.sum()
    stitched = one.stitch(torch.full((2 * one.count, 14, 14), 3.25))
    torch.testing.assert_close(stitched, torch.full_like(stitched, 3.25))
    assert stitched.shape[0] == 2


def test_a_linear_map_is_stitched_without_a_seam():
    one = framing(tiles=(3, 2), overlap=0.25)
    rows, columns = torch.linspace(0, 1, 14)[:, None], torch.linspace(0, 1, 14)[None]
    maps = [a + (b - a) * rows + 2 * (c + (d - c) * columns) for a, c, b, d in one.boxes]
    stitched = one.stitch(torch.stack(maps).double())
    height, width = stitched.shape[1:]
    expected = torch.linspace(0, 1, height)[:, None] + 2 * torch.linspace(0, 1, width)[None]
    torch.testing.assert_close(stitched[0], expected.double(), atol=1e-6, rtol=0)


def test_a_defect_across_a_seam_is_one_region():
    one = framing(tiles=(1, 2), overlap=0.2)
    picture = np.zeros((64, 116, 3), dtype=np.uint8)
    picture[28:36, 40:76] = 255  # across both borders of the overlap
    maps = torch.stack([torch.from_numpy(tile[:, :, 0]).float() for tile in one.tiles_of(picture, (64, 64))])
    stitched = upsample(one.stitch(maps), (64, 116))[0].numpy() > 127
    _, count = ndimage.label(stitched)
    assert count == 1
    overlap = stitched & (picture[:, :, 0] > 0)
    assert overlap.sum() / (stitched | (picture[:, :, 0] > 0)).sum() > 0.75


def test_one_tile_of_the_whole_changes_nothing():
    maps = torch.rand(3, 5, 5)
    assert WHOLE.stitch(maps) is maps
    assert WHOLE.map_size((64, 48)) == (64, 48)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(WHOLE.tiles_of(image, (64, 64))[0], image)


def test_a_record_of_one_tile_is_cut_out_of_image_and_mask(tmp_path):
    image = np.zeros((40, 80, 3), dtype=np.uint8)
    image[:, 40:] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "m.png")
    one = framing(tiles=(1, 2), overlap=0.0)
    record = Record(tmp_path / "a.png", (tmp_path / "m.png",), "p", "dent", 1)
    for tile, value in ((0, 0), (1, 200)):
        tiles, mask = one.read(record._replace(tile=tile), (40, 40))
        assert len(tiles) == 1
        assert (tiles[0] == value).all()
        assert mask.all() == bool(value)
    tiles, mask = one.read(record, (40, 40))
    assert len(tiles) == 2
    np.testing.assert_array_equal(mask, image[..., 0] > 0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"region": [0, 0, 1]}, "region"),
        ({"region": [0.5, 0, 0.5, 1]}, "region"),
        ({"region": [0, 0, 100, 200]}, "fractions"),
        ({"tiles": 0}, "data.framing.tiles=0"),
        ({"overlap": 0.7}, "data.framing.overlap=0.7"),
        ({"ignore": "nowhere.png"}, "nowhere.png: no such file"),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        framing(**given)


@pytest.mark.slow
def test_training_on_tiles_of_a_region_ends_in_maps_of_the_region(uniad, tree, tmp_path):
    mask = np.zeros((80, 72), dtype=np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save(tmp_path / "ignore.png")
    status, out, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.framing.tiles=[1,2]",
        "data.framing.region=[0,0,1,0.9]", f"data.framing.ignore={tmp_path}/ignore.png", "trainer.max_epochs=1",
        "data.cache=disk", "validate_every=1",
    )  # fmt: skip
    assert status == 0, err
    assert "│ bottle   │     9 " in out  # images, not tiles
    status, out, err = uniad(
        "evaluate", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", f"output_dir={tmp_path}/again", "save_maps=true"
    )
    assert status == 0, err
    assert (tmp_path / "again/results.csv").read_text() == (tmp_path / "run/results.csv").read_text()
    for file in (tmp_path / "again/maps").iterdir():
        kept = np.load(file)
        assert kept["map"].shape == kept["mask"].shape == (64, round(64 * 1.9))
        assert (kept["map"][:15] == kept["map"].min()).all()
        assert not kept["mask"][:15].any()
