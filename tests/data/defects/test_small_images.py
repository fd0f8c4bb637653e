"""Every kind of synthetic defect ends on images of any size, keeps their kind, and changes nothing outside its mask."""

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from support.configs import CONF

KINDS = sorted(path.stem for path in (CONF / "data/defects").glob("*.yaml"))
SIZES = [(1, 1), (2, 2), (1, 2), (1, 64), (64, 1), (3, 5), (8, 8)]


def made(kind, folder, **changes):
    cfg = OmegaConf.load(CONF / f"data/defects/{kind}.yaml")
    if kind == "outliers":
        Image.new("RGB", (7, 3), (9, 200, 30)).save(folder / "outlier.png")
        cfg.folder = str(folder)
    cfg.update({name: value for name, value in changes.items() if name in cfg})
    return instantiate(cfg)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_of_a_small_image_is_made_and_stays_within_its_mask(kind, size, tmp_path):
    defects = made(kind, tmp_path, share_good=0.0)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    untouched, marked = image.copy(), 0
    for seed in range(20):
        versions = defects(image, np.random.default_rng(seed))
        assert len(versions) == defects.views
        for damaged, mask in versions:
            assert (damaged.shape, damaged.dtype, mask.shape, mask.dtype) == (image.shape, np.uint8, size, bool)
            assert np.abs(damaged[~mask].astype(int) - image[~mask]).max(initial=0) <= (1 if kind == "confetti" else 0)
            marked += bool(mask.any())
    assert marked == 20 * defects.views or (kind == "confetti" and marked > 0)
    assert np.array_equal(image, untouched)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cutpaste"])
def test_an_image_that_is_left_good_is_the_same(kind, tmp_path):
    image = np.full((1, 1, 3), 7, dtype=np.uint8)
    ((same, mask),) = made(kind, tmp_path, share_good=0.999999)(image, np.random.default_rng(0))
    assert np.array_equal(same, image)
    assert not mask.any()


def test_textures_of_a_folder_fit_a_small_image(tmp_path):
    Image.new("RGB", (40, 40), (10, 200, 60)).save(tmp_path / "texture.png")
    defects = made("perlin", tmp_path, share_good=0.0, textures=str(tmp_path), opacity=[1.0, 1.0])
    ((damaged, mask),) = defects(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0))
    assert mask.all()
    assert damaged.any()
