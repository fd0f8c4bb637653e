"""What holds for any input, tried on many that Hypothesis makes up."""

import csv
import io
import json

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score

from uniad_lightning.data.images.resizing import resize, resize_mask
from uniad_lightning.data.images.tiling import Framing, cut
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.patterns import inside
from uniad_lightning.errors import InputError, printable
from uniad_lightning.files.csv_text import MARK, csv_text
from uniad_lightning.files.mask_bits import compress_mask, decompress_mask
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.metrics.roc import trace
from uniad_lightning.prediction.overlays import safe_name
from uniad_lightning.training.saved_config import saved_config

# No deadline: the machine may be busy. The same examples each time, as all tests.
many = settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
side = st.integers(1, 40)
seeds = st.integers(0, 2**16)
texts = st.text(max_size=30)
keys = st.text("abz", min_size=1, max_size=5)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text("abz_ 09.-", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)
entries = st.dictionaries(st.sampled_from(["filename", "label", "clsname", "maskname"]), plain)


def image(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@many
@given(side, side, side, side, seeds)
def test_resampling_stays_within_the_values_and_keeps_a_constant(height, width, down, across, seed):
    pixels = image(height, width, seed)
    small = resize(pixels, (down, across))
    assert small.shape == (down, across, 3)
    assert pixels.min() <= small.min()
    assert small.max() <= pixels.max()
    assert (resize(np.full_like(pixels, seed % 256), (down, across)) == seed % 256).all()
    assert np.array_equal(resize(pixels, (height, width)), pixels)
    mask = resize_mask(pixels[..., 0] > 127, (down, across))
    assert mask.shape == (down, across)
    assert {*np.unique(mask)} <= {*np.unique(pixels[..., 0] > 127)}


@many
@given(st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.5), side, side, seeds)
def test_tiles_cover_an_image_and_go_together_again(rows, columns, overlap, height, width, seed):
    framing = Framing(region=None, tiles=[rows, columns], overlap=overlap, ignore=None)
    pixels = image(height + 8, width + 8, seed)
    seen = np.zeros(pixels.shape[:2], bool)
    place = np.arange(seen.size).reshape(*seen.shape, 1).repeat(3, axis=2)
    for box in framing.boxes:
        seen.ravel()[cut(place, box)[..., 0].ravel()] = True
    assert seen.all()
    maps = torch.full((2 * framing.count, 8, 8), 0.25)
    whole = framing.stitch(maps)
    assert len(whole) == 2
    assert torch.allclose(whole, torch.tensor(0.25))


@many
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_area_below_a_curve_is_scikit_learns(defective, good):
    counts = (torch.bincount(torch.tensor(scores), minlength=10).double().flip(0) for scores in (defective, good))
    curve = trace(*counts)  # counts from the highest score down
    area = torch.trapezoid(*map(torch.from_numpy, (curve.true_positives, curve.false_positives)))
    expected = roc_auc_score([1] * len(defective) + [0] * len(good), defective + good)
    assert abs(float(area) - expected) < 1e-9


@many
@given(side, side, seeds, st.floats(0, 1))
def test_regions_partition_the_mask(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(decompress_mask(compress_mask(mask), mask.shape), mask)
    found = regions_of(mask)
    assert sum(region.area for region in found) == mask.sum()
    covered = np.zeros_like(mask)
    for region in found:
        left, top, right, bottom = region.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        covered[top:bottom, left:right] = True
    assert not (mask & ~covered).any()
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)


def regions_of(mask):
    """The regions of an inspection whose mask is given."""
    shown = Inspection.__new__(Inspection)
    shown.__dict__.update(mask=mask, anomaly_map=np.random.default_rng(0).random(mask.shape))
    return Inspection.regions.func(shown)


@many
@given(st.lists(st.lists(texts.filter(lambda text: "\0" not in text), min_size=1, max_size=4), min_size=1, max_size=4))
def test_csv_comes_back_and_begins_no_formula(rows):
    read = list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True))
    for given_row, found in zip(rows, read, strict=True):
        assert len(given_row) == len(found)
        for text, cell in zip(given_row, found, strict=True):
            assert cell in (text, MARK + text)
            assert len(cell) < 2 or cell[0] not in "=+-@\t\r\n" or _is_number(cell)


def _is_number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False


@many
@given(texts)
def test_names_steer_nothing_and_lead_nowhere(tmp_path, text):
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in printable(text))
    if "\0" not in text:
        assert (tmp_path / safe_name(text)).resolve().is_relative_to(tmp_path.resolve())
    try:
        assert ".." not in inside(tmp_path, text, "key").parts
    except InputError as error:
        assert "\n" not in printable(str(error))  # noqa: PT017 - both ends are right


@many
@given(st.dictionaries(keys, plain, min_size=1, max_size=5))
def test_a_configuration_comes_back_from_its_file(tmp_path, values):
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))
    assert saved_config(tmp_path / "config.yaml") == values


@many
@given(
    st.lists(plain | st.dictionaries(st.sampled_from(["filename", "label", "clsname", "maskname"]), plain), min_size=1)
)
def test_a_list_of_anything_is_refused_with_its_line(tmp_path, lines):
    (tmp_path / "test.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "train.json").write_text('{"filename": "x.png", "label": 0, "clsname": "a"}\n')
    try:
        list_meta(tmp_path, train="train.json", test="test.json")
    except InputError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 - nothing else may come
    else:
        raise AssertionError("there is no such image")
