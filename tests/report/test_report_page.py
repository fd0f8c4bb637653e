"""The page in a browser: its numbers are Python's, and its gallery follows them."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from support.reports import counts, data_of, table_of
from uniad_lightning.report.content import ReportedImage, ReportedRun
from uniad_lightning.report.numbers import score_table
from uniad_lightning.report.page import PageRun, render
from uniad_lightning.report.pictures import Drawn, draw
from uniad_lightning.report.write import write_report

pytestmark = pytest.mark.slow


def set_value(page, selector, value):
    """Move a slider, or type into a number field, as its user does; returns the number that the page gets.

    A slider rounds to its own digits, also when it follows the number field.
    """
    got = page.eval_on_selector(
        selector,
        "(node, value) => { node.value = value; const got = Number(node.value);"
        " node.dispatchEvent(new Event('input')); return got; }",
        str(value),
    )
    settle(page)
    return got


def settle(page):
    """Wait until the page is drawn anew, which it is with the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def shown(page, name):
    settle(page)
    return int(page.inner_text(f'#readout b[data-count="{name}"]'))


def numbers_in(page, selector):
    return [int(text) for text in page.locator(selector).all_inner_texts()]


def test_the_sliders_numbers_are_pythons_at_ten_boundaries(evaluated, opened):
    page, rows = opened(evaluated), table_of(evaluated)
    page.check("input[name=mode][value=one]", force=True)
    scores = sorted(float(row["score"]) for row in rows)
    for place, boundary in enumerate([*np.linspace(scores[0] - 0.01, scores[-1] + 0.01, 7), *scores[:3]]):
        limit = set_value(page, "#boundary" if place % 2 else "#slider", repr(float(boundary)))
        alarms, misses = counts(rows, lambda _, limit=limit: limit)
        assert (shown(page, "false alarms"), shown(page, "misses")) == (alarms, misses), boundary
        each = [
            counts([r for r in rows if r["category"] == name], lambda _, limit=limit: limit)
            for name in ("bottle", "cable")
        ]
        found = [numbers_in(page, f"#products tr[data-product] td.{kind} b") for kind in ("alarms", "misses")]
        assert list(zip(*found, strict=True)) == each


def test_each_product_has_a_boundary_of_its_own(evaluated, opened):
    page, rows = opened(evaluated), table_of(evaluated)
    page.check("input[name=mode][value=each]", force=True)
    settle(page)
    assert page.is_hidden("#slider")  # no one boundary for both
    own = {"bottle": 0, "cable": 1}
    limits = {row["category"]: float(row["boundary"]) for row in rows}
    assert (shown(page, "false alarms"), shown(page, "misses")) == counts(rows, limits.get)
    for category, shift in (("bottle", 0.02), ("cable", -0.03), ("bottle", -0.4), ("cable", 0.6)):
        selector = f"#products input[data-product='{own[category]}']"
        limits[category] = set_value(page, selector, repr(limits[category] + shift))
        assert (shown(page, "false alarms"), shown(page, "misses")) == counts(rows, limits.get)
    page.select_option("#product", label="cable")
    settle(page)
    assert page.is_visible("#slider")
    page.click("#reset")
    page.select_option("#product", label="all products")
    limits = {row["category"]: float(row["boundary"]) for row in rows}
    assert (shown(page, "false alarms"), shown(page, "misses")) == counts(rows, limits.get)


def test_shares_have_wilsons_interval(evaluated, opened):
    page, rows = opened(evaluated), table_of(evaluated)
    good = [row for row in rows if row["label"] == "good"]
    alarms = shown(page, "false alarms")
    low, high = binomtest(alarms, len(good)).proportion_ci(method="wilson")
    text = page.inner_text("#readout .alarm")
    assert f"of {len(good)} good · {100 * alarms / len(good):.1f}" in text
    assert f"95 %: {100 * low:.1f}–{100 * high:.1f} %" in text


def test_the_gallery_begins_with_what_is_most_wrong_and_follows_the_slider(evaluated, opened):
    page, rows = opened(evaluated), table_of(evaluated)
    page.check("input[name=mode][value=one]", force=True)
    scores = sorted(float(row["score"]) for row in rows)
    for boundary in (scores[2], scores[-3]):
        limit = set_value(page, "#slider", repr(boundary))
        sign = {"good": 1, "defective": -1}
        expected = sorted(rows, key=lambda row, limit=limit: -sign[row["label"]] * (float(row["score"]) - limit))
        assert page.locator("#cards .path").all_inner_texts() == [row["path"] for row in expected]
        wrong = sum(counts(rows, lambda _, limit=limit: limit))
        assert page.locator("#cards .badge.miss, #cards .badge.alarm").count() == wrong


def test_filters_leave_what_was_asked_for(evaluated, opened):
    page, rows = opened(evaluated), table_of(evaluated)

    def kept():
        settle(page)
        return sorted(page.locator("#cards .path").all_inner_texts())

    page.select_option("#kind", "scratch")
    assert kept() == sorted(row["path"] for row in rows if row["defect"] == "scratch")
    page.click("#products button:text('cable')")
    assert kept() == sorted(r["path"] for r in rows if r["defect"] == "scratch" and r["category"] == "cable")
    page.select_option("#kind", "")
    page.click("#products button:text('cable')")
    page.select_option("#decision", "miss")
    assert kept() == sorted(row["path"] for row in rows if row["mistake"] == "missed")
    page.select_option("#decision", "defective")
    assert kept() == sorted(row["path"] for row in rows if row["decision"] == "defective")


def test_a_painted_overlay_is_that_of_python(evaluated, opened):
    """Where a map is far above the boundary, an overlay has the map's colour; up to the boundary it has none."""
    page, (run,) = opened(evaluated), data_of(evaluated)["runs"]
    places = sorted(range(len(run["images"])), key=lambda place: -run["images"][place]["score"])
    path = run["images"][places[0]]["path"]
    page.click(f'#cards .card:has(.path[title="{path}"])')
    # A new canvas is 300 wide; its size and its pixels are set at once.
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('#stage canvas')];"
        " return all.length === 2 && all.every((one) => one.width !== 300); }"
    )
    pixels = page.evaluate(
        "() => [...document.querySelectorAll('#stage canvas')].map((one) => "
        "[...one.getContext('2d').getImageData(0, 0, one.width, one.height).data])"
    )
    drawn, colours = (np.array(one).reshape(-1, 4) for one in pixels)
    assert (colours[:, 3] == 255).all()
    level_of = {tuple(colour): level for level, colour in enumerate(data_of(evaluated)["colours"])}
    levels = np.array([level_of[tuple(colour)] for colour in colours[:, :3].tolist()])
    start = run["scales"][run["images"][places[0]]["product"]]
    growth = np.sqrt(np.clip((levels - start) / ((255 - start) / 2), 0, 1))
    assert np.abs(drawn[:, 3] - 255 * 0.6 * growth).max() <= 1
    assert (drawn[:, 3] == 0).any()


def test_runs_stand_side_by_side(runs, opened, tmp_path):
    page = opened(write_report([runs / "evaluated", runs / "run", runs / "predicted"], out=tmp_path, device="cpu").page)
    assert page.locator("#compare thead th").all_inner_texts() == ["product", "evaluated", "run"]  # with labels
    page.click("#cards .card")
    assert "in run" in page.inner_text("#viewer-facts")
    page.keyboard.press("Escape")
    page.check("input[name=run][value='2']", force=True)
    page.wait_for_function("() => document.getElementById('run-name').textContent.startsWith('predicted')")
    page.wait_for_selector('#readout b[data-count="called defective"]')
    journal = [json.loads(line) for line in (runs / "predicted" / "predictions.jsonl").read_text().splitlines()]
    assert shown(page, "called defective") == sum(row["decision"] == "defective" for row in journal)
    assert shown(page, "unfamiliar") == sum(row["familiar"] is False for row in journal)
    assert page.locator("#charts svg").count() == 1


def run_of(folder, products, offset):
    """A run whose `products` have a good and a defective image; with `offset` 9 the good one scores higher."""
    folder.mkdir()
    rows = [
        [f"{name}/{label}.png", name, label, score, ""]
        for name in products
        for label, score in (("good", offset), ("defective", 5))
    ]
    with (folder / "test_scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "category", "label", "score", "decision"], *rows])
    return folder


def test_a_product_may_be_called_as_a_sum_or_a_key(opened, tmp_path):
    first = run_of(tmp_path / "a", ["__proto__", "mean", "7"], 0)
    with_mean = write_report([first, run_of(tmp_path / "b", ["7"], 9)], out=tmp_path, maps=False).page
    page = opened(with_mean)
    rows = page.locator("#compare tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["7", "__proto__", "mean", "mean", "pooled"]
    assert "missed" in rows[2]
    assert "missed" not in rows[3]
    options = page.locator("#product option").all_inner_texts()
    assert options == ["all products", "7", "__proto__", "mean"]


def test_two_thousand_images_fit_and_work(opened, tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.clip(
        rng.normal(128, 20, (64, 64, 3)).repeat(4, 0).repeat(4, 1) + rng.normal(0, 8, (256, 256, 3)), 0, 255
    )
    drawn = draw_once(pixels.astype(np.uint8), tmp_path)
    images = tuple(
        ReportedImage(
            f"{i:04d}.png", f"p{i % 15:02d}", int(i % 3 == 0), "x", float(rng.normal(i % 3 == 0)), "", "", None, ""
        )
        for i in range(2000)
    )
    run = reported(tmp_path, images)
    page_file = tmp_path / "report.html"
    page_file.write_text(render([PageRun("many", run, Drawn(dict.fromkeys(range(2000), drawn), {}, {}, 0.0))], "uniad"))
    (tmp_path / "report.csv").write_text(score_table(["many"], [run]))
    assert page_file.stat().st_size < 40e6
    page = opened(page_file)
    print(f"{page_file.stat().st_size / 1e6:.1f} MB; loaded after", page.evaluate("performance.now()"), "ms")
    assert page.inner_text("#gallery-count") == "2000 of 2000"
    assert page.locator("#cards .card").count() == 60
    page.click("#more")
    page.wait_for_function("() => document.querySelectorAll('#cards .card').length === 180")
    limit = set_value(page, "#slider", "0.5")
    found = shown(page, "false alarms"), shown(page, "misses")
    assert found == counts(table_of(page_file), lambda _: limit)


def reported(folder, images):
    readers = lambda wanted: ()  # noqa: E731 - nothing is read
    return ReportedRun(folder, images, True, None, False, None, {}, "", folder / "test_scores.csv", readers)


def draw_once(pixels, folder):
    """The picture of one image, by the code that draws those of a run."""
    image = ReportedImage("a.png", "p", 0, "good", 0.5, "", "", None, "")
    run = reported(folder, (image,))._replace(readers=lambda wanted: [(0, lambda: (pixels, None))])
    picture = draw(run, [0], None, None).pictures[0]
    return picture._replace(heat=np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32))
