"""Augmentation: off by default, keyed to the sample's number, and no image is made defective by it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
OFF = {"flip": 0.0, "flip_vertical": 0.0, "rotate": 0.0, "colour": 0.0, "seed": 0}


@pytest.mark.slow
def test_off_returns_the_image_itself_and_does_not_import_albumentations():
    augmentation = Augmentation(**OFF)
    assert not augmentation.is_random
    assert augmentation(IMAGE, 5) is IMAGE
    code = (
        "import sys; from uniad_lightning.data.images.augmentation import Augmentation as A; "
        f"A(**{OFF}); print('albumentations' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("name", "expected"), [("flip", IMAGE[:, ::-1]), ("flip_vertical", IMAGE[::-1])], ids=lambda part: str(part)[:5]
)
def test_mirrors(name, expected):
    always = Augmentation(**{**OFF, name: 1.0})
    assert always.is_random
    assert np.array_equal(always(IMAGE, 0), expected)
    half = Augmentation(**{**OFF, name: 0.5})
    mirrored = [np.array_equal(half(IMAGE, number), expected) for number in range(100)]
    assert 30 <= sum(mirrored) <= 70
    assert all(was or np.array_equal(half(IMAGE, number), IMAGE) for number, was in enumerate(mirrored))


def test_changes_are_drawn_independently_of_each_other():
    both = Augmentation(**{**OFF, "flip": 0.5, "flip_vertical": 0.5})
    outcomes = {(v, h): IMAGE[::v, ::h].tobytes() for v in (1, -1) for h in (1, -1)}
    drawn = [both(IMAGE, number).tobytes() for number in range(200)]
    assert all(30 <= drawn.count(outcome) <= 70 for outcome in outcomes.values())


def test_rotation_keeps_size_and_leaves_no_black_corner():
    bright = np.full((40, 40, 3), 200, np.uint8)
    turned = Augmentation(**{**OFF, "rotate": 45.0})
    for number in range(5):
        assert np.array_equal(turned(bright, number), bright)
    results = [turned(IMAGE, number) for number in range(5)]
    assert all(result.shape == IMAGE.shape and result.dtype == np.uint8 for result in results)
    assert len({result.tobytes() for result in results}) == 5


def test_colour_changes_brightness_within_its_range():
    grey = np.full((16, 16, 3), 100, np.uint8)
    changed = Augmentation(**{**OFF, "colour": 0.2})
    means = [changed(grey, number).mean() for number in range(60)]
    assert 60 <= min(means) < 95
    assert 105 < max(means) <= 150
    assert all(np.ptp(changed(grey, number)) == 0 for number in range(5))


def test_what_is_drawn_follows_from_seed_and_number():
    settings = {"flip": 0.5, "flip_vertical": 0.5, "rotate": 30.0, "colour": 0.3}
    one, same, other = (Augmentation(**settings, seed=seed) for seed in (0, 0, 1))
    backwards = [same(IMAGE, number) for number in reversed(range(8))][::-1]
    assert all(np.array_equal(one(IMAGE, number), backwards[number]) for number in range(8))
    assert any(not np.array_equal(one(IMAGE, number), other(IMAGE, number)) for number in range(8))


@pytest.mark.parametrize(("name", "value"), [("flip", 1.5), ("flip_vertical", -0.1), ("rotate", 181), ("colour", 2)])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"data.augmentation.{name}={value}: expected a number from 0 to"):
        Augmentation(**{**OFF, name: value})


@pytest.mark.slow
def test_no_network_is_asked_for_a_newer_version():
    code = (
        "import json, os, socket, sys\n"
        "calls = []\n"
        "sys.addaudithook(lambda event, args: calls.append(event) if event.startswith('socket.') else None)\n"
        "from uniad_lightning.data.images.augmentation import Augmentation\n"
        "Augmentation(flip=0.5, flip_vertical=0.0, rotate=0.0, colour=0.0, seed=0)\n"
        "print(json.dumps([c for c in calls if c in ('socket.connect', 'socket.getaddrinfo')]))\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert json.loads(done.stdout.splitlines()[-1]) == []
