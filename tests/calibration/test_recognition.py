"""Finding an image's category by the nearest train image, and saying when that is of no use."""

import numpy as np
import pytest
import torch

from uniad_lightning.calibration.boundaries import warn_of_none
from uniad_lightning.calibration.outcomes import warn_of_blind
from uniad_lightning.calibration.recognition import learn, warn_of_useless, with_categories
from uniad_lightning.calibration.report import Outcome
from uniad_lightning.calibration.scores import Scores
from uniad_lightning.data.records import Record
from uniad_lightning.detectors.base import Output
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.inspection.familiarity import Familiarity

NAMES = ("bottle", "cable")


def scored(descriptors, categories):
    records = tuple(Record(f"{i}.png", (), name, "good", 0) for i, name in enumerate(categories))
    return Scores(records, np.zeros(len(records)), np.zeros(len(records)), torch.as_tensor(descriptors).float())


def clouds(count, distance, seed=0):
    """Mean features of two categories that are so far apart, in units of their deviation."""
    features = np.random.default_rng(seed).normal(size=(2 * count, 8))
    features[count:] += distance
    return scored(features, ["bottle"] * count + ["cable"] * count)


@pytest.mark.parametrize("owner", [0, -1])
def test_images_that_were_reviewed_as_good_stay_familiar_beside_new_train_images(owner):
    nothing = Scores((), np.zeros(0), np.zeros(0), None)
    before = learn(clouds(100, 10), nothing, rate=0.01, before=None, categories=NAMES).familiarity
    odd = torch.full((1, 8), -30.0)
    owners = torch.cat([before.owners, torch.tensor([owner])])
    references = torch.cat([before.references, odd])
    reviewed = Familiarity(references=references, boundary=1.0, names=NAMES, owners=owners, reviewed=1)
    stored = Familiarity.from_plain(reviewed.plain())
    train = clouds(100, 10, seed=1)
    for _ in range(2):  # by each calibration
        stored = learn(train, nothing, rate=0.01, before=stored, categories=NAMES).familiarity
    known = owner >= 0  # nothing says that an image of no category is one of the detector's
    assert (len(stored.references), stored.reviewed) == (200 + known, int(known))
    assert (float(stored.distance(odd)) < stored.boundary) == known
    assert learn(train, nothing, rate=0.01, before=stored, categories=["cable"]).familiarity.reviewed == 0


def test_categories_that_differ_are_found_and_choose_the_boundary():
    found = learn(clouds(100, 10), clouds(20, 10, seed=1), rate=0.01, before=None, categories=NAMES)
    assert (found.right, found.images) == (240, 240)
    assert found.reliable
    unnamed = scored(clouds(5, 10, seed=2).descriptor, [""] * 5 + ["given"] * 5)
    names = [record.category for record in with_categories(unnamed, found.familiarity).records]
    assert names == ["bottle"] * 5 + ["given"] * 5


def test_categories_that_look_alike_do_not_choose_the_boundary():
    found = learn(clouds(100, 0.5), clouds(20, 0.5, seed=1), rate=0.01, before=None, categories=NAMES)
    assert 0.5 * found.images < found.right < 0.95 * found.images
    assert not found.reliable


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_share_of_good_images_that_look_unfamiliar_is_the_rate(rate):
    found = learn(clouds(300, 10), clouds(50, 10, seed=1), rate=rate, before=None, categories=NAMES)
    new = clouds(3000, 10, seed=2).descriptor
    share = float((found.familiarity.distance(new) > found.familiarity.boundary).float().mean())
    assert share == pytest.approx(rate, rel=0.6)


def test_train_images_alone_set_what_is_familiar_where_none_are_held_out():
    nothing = Scores((), np.zeros(0), np.zeros(0), None)
    found = learn(clouds(100, 10), nothing, rate=0.01, before=None, categories=NAMES)
    assert found.images == 200
    assert found.familiarity.boundary > 0
    assert learn(scored(np.zeros((1, 8)), ["bottle"]), nothing, rate=0.01, before=None, categories=NAMES) is None
    assert learn(nothing, nothing, rate=0.01, before=None, categories=NAMES) is None


def test_what_an_earlier_calibration_has_learned_is_kept_where_there_are_no_train_images():
    nothing = Scores((), np.zeros(0), np.zeros(0), None)
    before = learn(clouds(100, 10), nothing, rate=0.01, before=None, categories=NAMES).familiarity
    again = learn(nothing, clouds(20, 10, seed=1), rate=0.01, before=before, categories=NAMES)
    assert (again.right, again.images, again.missing) == (240, 240, ())
    joined = clouds(50, -10, seed=2)
    new = scored(joined.descriptor[50:], ["gear"] * 50)  # a category that has joined since
    extended = learn(new, nothing, rate=0.01, before=before, categories=[*NAMES, "gear"])
    assert extended.familiarity.names == ("bottle", "cable", "gear")
    assert extended.reliable
    alone = learn(new, nothing, rate=0.01, before=None, categories=[*NAMES, "gear"])
    assert (alone.missing, alone.reliable) == (NAMES, False)


def test_copies_of_images_do_not_make_everything_else_unfamiliar():
    nothing = Scores((), np.zeros(0), np.zeros(0), None)
    once = clouds(100, 10)
    twice = Scores(once.records * 2, np.tile(once.score, 2), np.tile(once.peak, 2), once.descriptor.repeat(2, 1))
    boundaries = [
        learn(train, nothing, rate=0.01, before=None, categories=NAMES).familiarity.boundary for train in (once, twice)
    ]
    assert boundaries[1] == pytest.approx(boundaries[0], rel=0.05)
    same = scored(np.ones((4, 8)), ["bottle"] * 4)
    assert learn(same, nothing, rate=0.01, before=None, categories=["bottle"]).familiarity.boundary > 0


class Looking:
    """An engine to which images without a part look like `descriptor`."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def inspect(self, images):
        assert all(image.shape == (256, 256, 3) for image in images)
        return Output(None, None, None, self.descriptor)


def test_it_is_said_where_familiarity_is_of_no_use():
    familiarity = learn(clouds(100, 10), clouds(20, 10, seed=1), rate=0.01, before=None, categories=NAMES)
    far, near = torch.full((4, 8), 100.0), clouds(2, 10, seed=3).descriptor
    assert warn_of_useless(Looking(far), familiarity, {"good": 0.1}) == []
    (line,) = warn_of_useless(Looking(far), familiarity, {"good": 0.85})
    assert line.startswith("85% of the good test images look unfamiliar")
    (line,) = warn_of_useless(Looking(torch.cat([near[:1], far[:3]])), familiarity, {})
    assert line.startswith("a black image looks familiar to this detector")
    (line,) = warn_of_useless(Looking(near), familiarity, {})
    assert line.startswith("a black image, a grey image, a white image or noise looks familiar")


def test_a_boundary_that_misses_nearly_everything_is_named():
    def rows(*misses):
        return [
            Outcome(name, 1.0, 20, 0, 60, missed) for name, missed in zip(("mono", "poly", "all"), misses, strict=True)
        ]

    (line,) = warn_of_blind(rows(60, 30, 90), rows(10, 20, 30))
    assert line == (
        "with one boundary for all 60 of 60 defective images of mono are missed; the scores of the categories differ"
    )
    (line,) = warn_of_blind([], rows(0, 55, 55))
    assert line.startswith("with its own boundary 55 of 60 defective images of poly are missed")
    assert warn_of_blind([Outcome("mono", 1.0, 20, 0, 0, 0)], []) == []
    (line,) = warn_of_blind([Outcome("mono", 1.0, 20, 11, 5, 0)], [])
    assert line == "with one boundary for all 11 of 20 good images of mono are called defective"


def test_categories_without_a_boundary_of_their_own_are_named():
    own = Boundary(1.0, 1.0, 1.0, 9, 0.1, 0.0, 0.3)
    calibration = Calibration("rate=0.01", own, {"bottle": own}, by_category=True)
    assert warn_of_none(calibration, ["bottle"]) == []
    assert warn_of_none(calibration, NAMES) == [
        "no boundary of its own for lack of images, so the one for all decides: cable"
    ]


def test_copies_are_said_and_the_categories_that_share_photographs():
    far = torch.full((4, 8), 100.0)
    once = clouds(20, 10).descriptor
    copied = scored(torch.cat([once, once[:10]]), ["bottle"] * 20 + ["cable"] * 20 + ["bottle"] * 10)
    nothing = Scores((), np.zeros(0), np.zeros(0), None)

    def lines(train):
        return warn_of_useless(Looking(far), learn(train, nothing, rate=0.01, before=None, categories=NAMES), {})

    assert lines(scored(once, ["bottle"] * 20 + ["cable"] * 20)) == []
    (line,) = lines(copied)
    assert line.startswith("20 of 50 train images are copies of others")
    twins = scored(once[:20].repeat(2, 1), ["bottle"] * 20 + ["cable"] * 20)
    assert lines(twins)[0].startswith("the same photographs are train images of bottle and cable")


def test_held_out_frames_of_the_series_that_was_trained_on_are_said():
    train, far = clouds(50, 10), torch.full((4, 8), 100.0)
    frames = train.descriptor + 0.05 * torch.randn(train.descriptor.shape, generator=torch.Generator().manual_seed(0))
    for descriptor, series in ((frames, NAMES), (clouds(50, 10, seed=1).descriptor, ())):
        good = scored(descriptor, [record.category for record in train.records])
        found = learn(train, good, rate=0.01, before=None, categories=NAMES)
        assert found.series == series
        lines = warn_of_useless(Looking(far), found, {})
        assert [line.split(" are nearly")[0] for line in lines] == ["held-out images of bottle, cable"] * bool(series)
