"""The paired test below a table: against a plain loop, how often it holds the truth, runs that it cannot compare."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError
from uniad_lightning.metrics.bootstrap import interval, multiplicities
from uniad_lightning.paper.differences import Images, ScoredRow, notes_on_differences, read_scores, resampled_aurocs
from uniad_lightning.paper.gathering import Run
from uniad_lightning.paper.layouts import LAYOUTS
from uniad_lightning.results.decisions import ScoredRecord
from uniad_lightning.results.outcomes import report_decisions
from uniad_lightning.results.run_folder import TEST_SCORES

LAYOUT = LAYOUTS["5c"]
LABELS = np.repeat([0, 1], 40)


def row_of(scores, labels=LABELS):
    names = tuple(("gear", f"{place:03}.png") for place in range(len(labels)))
    return ScoredRow(Images(names, labels, np.zeros(len(labels), dtype=int)), np.atleast_2d(scores))


def test_the_resamples_of_a_row_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    labels, ids = np.tile([0, 0, 1], 10), np.repeat([0, 1], 15)
    row = row_of(rng.normal(labels, 1, (2, 30)), labels)
    drawn = multiplicities(2 * ids + labels, seed=1, resamples=20)
    found = resampled_aurocs(row, drawn, [ids == 0, ids == 1])
    expected = [
        np.mean([
            roc_auc_score(labels[ids == i].repeat(times[ids == i]), scores[ids == i].repeat(times[ids == i]))
            for scores in row.scores for i in (0, 1)
        ])
        for times in drawn
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-12)


def related(rng, labels, shifts, shared):
    """Scores of two detectors, normal with the given shifts of defects, that share a part of their variance."""
    common = rng.normal(0, np.sqrt(shared), len(labels))
    return [shift * labels + common + rng.normal(0, np.sqrt(1 - shared), len(labels)) for shift in shifts]


def difference(rows, seed):
    drawn = multiplicities(rows[0].images.labels, seed=seed, resamples=400)
    first, second = (resampled_aurocs(row, drawn, [np.ones(len(row.images.labels), dtype=bool)]) for row in rows)
    return first - second


def test_what_is_hard_for_both_is_no_difference():
    rng = np.random.default_rng(0)
    paired, alone = (
        np.std(difference([row_of(scores) for scores in related(rng, LABELS, (1.2, 1.2), shared)], 0))
        for shared in (0.95, 0.0)
    )
    assert paired < 0.5 * alone


@pytest.mark.slow
@pytest.mark.parametrize("shifts", [(1.5, 1.5), (1.5, 1.1)])
def test_intervals_of_a_difference_hold_the_truth_in_92_to_98_of_100(shifts):
    rng, labels, held, simulations = np.random.default_rng(0), np.repeat([0, 1], [80, 70]), 0, 300
    true = norm.cdf(shifts[0] / np.sqrt(2)) - norm.cdf(shifts[1] / np.sqrt(2))
    for simulation in range(simulations):
        rows = [row_of(scores, labels) for scores in related(rng, labels, shifts, 0.7)]
        low, high = interval(difference(rows, simulation))
        held += low <= true <= high
    assert 0.92 <= held / simulations <= 0.98, held / simulations


# From run folders.


@pytest.fixture
def run(tmp_path):
    """A run of the setting `size` with scores of 40 good and 40 defective images below `root`."""

    def write(size, strength, *, seed=0, root="photos", wrong=0):
        folder = tmp_path / f"{size}-{seed}-{strength}"
        hard = np.random.default_rng(0).normal(size=80)  # for every run
        scores = hard + strength * LABELS + 0.05 * np.random.default_rng([size, seed]).normal(size=80)
        labels = np.roll(LABELS, wrong)
        kinds = [("good", "scratch")[label] for label in labels]
        images = [
            ScoredRecord(Record(Path(root, "test", kind, f"{k:03}.png"), (), "gear", kind, int(label)), score, None)
            for k, (kind, label, score) in enumerate(zip(kinds, labels, scores, strict=True))
        ]
        report_decisions(folder, images)
        return Run(folder, {"seed": seed}, {"categories": {"gear": {"images": 80}}})

    return write


def test_notes_tell_noise_from_what_is_beyond_it(run):
    rows = {1: [run(1, 2.0), run(1, 2.0, seed=1)], 5: [run(5, 2.0, root="/elsewhere")], 7: [run(7, 1.0)]}
    notes = notes_on_differences(LAYOUT, rows)
    within, beyond = (next(note for note in notes if note.startswith(word)) for word in ("within", "beyond"))
    assert len(notes) == 2
    assert "the 80 test images: mean image AUROC less that of" in within
    names = {1, 5} - {1 if "that of 1," in within else 5}
    assert within.split("bootstrap): ")[1].startswith(f"{names.pop()} -0.")
    assert beyond.split("bootstrap): ")[1].startswith("7 -")
    assert notes == notes_on_differences(LAYOUT, rows)
    value, low, high = (float(n.strip("()")) for n in beyond.split("): 7 ")[1].replace(" to", "").split())
    labels, scores = zip(*read_scores(rows[7][0].folder).values(), strict=True)
    best = [read_scores(r.folder).values() for r in (rows[1] if "that of 1," in beyond else rows[5])]
    best_auroc = np.mean([roc_auc_score(*zip(*table, strict=True)) for table in best])
    assert value == pytest.approx(100 * (roc_auc_score(labels, scores) - best_auroc), abs=0.006)
    assert low < value < high < 0


def test_rows_of_other_images_are_not_compared(run):
    assert notes_on_differences(LAYOUT, {1: [run(1, 2.0)], 5: [run(5, 2.0, wrong=1)]}) == []
    assert notes_on_differences(LAYOUT, {1: [run(1, 2.0)]}) == []
    assert notes_on_differences(LAYOUTS["2"], {"unified": [run(1, 2.0)], "separate": [run(5, 2.0)]}) == []


def test_a_run_of_an_earlier_version_has_no_test_and_a_note(run):
    rows = {1: [run(1, 2.0)], 5: [run(5, 2.0)]}
    (rows[5][0].folder / TEST_SCORES).unlink()
    assert notes_on_differences(LAYOUT, rows) == [f"no test of differences: {rows[5][0].folder} has no test_scores.csv"]


@pytest.mark.parametrize("text", ["", "path,category,label\na,b,good\n", "path,category,label,score\na,b,bad,1\n"])
def test_scores_that_cannot_be_read_are_named(run, text):
    rows = {1: [run(1, 2.0)], 5: [run(5, 2.0)]}
    path = rows[5][0].folder / TEST_SCORES
    path.write_text(text)
    with pytest.raises(InputError, match="cannot be read .* expected columns path, category, label, score") as error:
        notes_on_differences(LAYOUT, rows)
    assert str(path) in str(error.value)


def test_seeds_of_one_row_have_to_be_of_the_same_images(run):
    other = run(1, 2.0, seed=1)
    path = other.folder / TEST_SCORES
    path.write_text(path.read_text().replace("003.png", "903.png"))
    with pytest.raises(InputError, match="test_scores.csv are of other images"):
        notes_on_differences(LAYOUT, {1: [run(1, 2.0), other], 5: [run(5, 2.0)]})
