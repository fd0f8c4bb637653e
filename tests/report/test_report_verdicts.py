"""Verdicts given on the page of predictions: by click and key, kept by the browser, taken by `uniad feedback`."""

import json
import shutil

import pytest

from support.contrast import contrasts
from uniad_lightning.feedback.history import latest, read_history
from uniad_lightning.feedback.verdicts import read_verdicts
from uniad_lightning.prediction.rows import empty_row, journal_line
from uniad_lightning.prediction.sources.items import broken_item
from uniad_lightning.report.write import write_report

pytestmark = pytest.mark.slow


@pytest.fixture
def predicted(runs, tmp_path):
    """A copy of the predictions, with its page."""
    folder = shutil.copytree(runs / "predicted", tmp_path / "predicted")
    write_report([folder], device="cpu")
    return folder


def paths(page):
    return page.locator("#cards .path").all_inner_texts()


def pressed(page):
    """Path and verdict of each card with one."""
    found = {}
    for verdict in ("good", "defective"):
        cards = page.locator(f'#cards li:has(.review.{verdict}[aria-pressed="true"])')
        found |= dict.fromkeys(cards.locator(".path").all_inner_texts(), verdict)
    return found


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def downloaded(page, folder):
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "verdicts.csv"
    waiting.value.save_as(folder / "verdicts.csv")
    return folder / "verdicts.csv"


def test_verdicts_are_given_downloaded_and_taken(predicted, opened, uniad, tmp_path):
    page = opened(predicted / "report.html")
    first, second, third, fourth = paths(page)[:4]
    assert page.is_disabled("#download")
    page.fill("#reviewer", "Kim, 2nd shift")
    page.locator("#cards li").nth(0).get_by_role("button", name="good", exact=True).click()
    page.locator("#cards .card").nth(1).focus()
    page.keyboard.press("d")
    page.locator("#cards .card").nth(2).click()
    page.keyboard.press("g")  # and goes on to the next
    assert page.inner_text("#viewer-title") == fourth
    page.locator("#viewer-reviews .defective").click()
    page.keyboard.press("Escape")
    settle(page)
    given = {first: "good", second: "defective", third: "good", fourth: "defective"}
    assert pressed(page) == given
    assert page.inner_text("#verdicts-count") == "2 good, 2 defective"
    file = downloaded(page, tmp_path)
    words = page.inner_text("#verdicts-command").split()[2:]
    assert words == [f"predictions={predicted}", "verdicts=verdicts.csv"]
    status, out, err = uniad("feedback", words[0], f"verdicts={file}")
    assert (status, err) == (0, "")
    assert "4 verdicts added" in out
    assert "0 verdicts added" in uniad("feedback", words[0], f"verdicts={file}")[1]
    kept = latest(read_history(predicted))
    assert {path: entry.verdict for path, entry in kept.items()} == given
    assert {entry.by for entry in kept.values()} == {"Kim, 2nd shift"}
    # A page that is made now, in a browser that knows nothing, shows them.
    page = opened(write_report([predicted], device="cpu").page)
    assert pressed(page) == given
    assert page.inner_text("#verdicts-count") == "none yet"
    page.select_option("#decision", label="with a verdict")
    settle(page)
    assert sorted(paths(page)) == sorted(given)
    page.select_option("#decision", label="without a verdict")
    settle(page)
    assert not set(paths(page)) & set(given)


def test_a_verdict_is_taken_back(predicted, opened):
    page = opened(predicted / "report.html")
    for verdict, by in (("good", "click"), ("defective", "key")):
        button = page.locator(f"#cards li >> nth=0 >> .review.{verdict}")
        button.click()
        settle(page)
        assert list(pressed(page).values()) == [verdict]
        if by == "click":
            button.click()
        else:
            page.locator("#cards .card").nth(0).focus()
            page.keyboard.press("u")
        settle(page)
        assert pressed(page) == {}
    for place in (0, 1):
        page.locator("#cards .review.good").nth(place).click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#forget")
    settle(page)
    assert len(pressed(page)) == 2
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#forget")
    settle(page)
    assert pressed(page) == {}


def test_the_browser_keeps_them_and_forgets_those_of_another_image(predicted, opened):
    page = opened(predicted / "report.html")
    first, second = paths(page)[:2]
    page.fill("#reviewer", "Kim")
    page.locator("#cards .review.good").nth(0).click()
    page.locator("#cards .review.defective").nth(1).click()
    page.reload()
    page.wait_for_selector("#cards .card")
    assert pressed(page) == {first: "good", second: "defective"}
    assert page.input_value("#reviewer") == "Kim"
    journal = predicted / "predictions.jsonl"
    rows = [json.loads(text) for text in journal.read_text().splitlines()]
    for row in rows:
        row["score"] += row["path"] == first
    journal.write_bytes(b"".join(map(journal_line, rows)))
    write_report([predicted], device="cpu")
    page.reload()
    page.wait_for_selector("#cards .card")
    assert pressed(page) == {second: "defective"}


@pytest.mark.parametrize("kept", ["throws", "{", "null", '{"x": 1}'])
def test_a_browser_that_keeps_nothing_or_nonsense_does_not_hinder(predicted, browser, tmp_path, kept):
    throws = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    nonsense = f"Storage.prototype.getItem = () => {json.dumps(kept)};"
    context = browser.new_context()
    context.add_init_script(throws if kept == "throws" else nonsense)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((predicted / "report.html").as_uri())
    page.wait_for_selector("#cards .card")
    page.locator("#cards .review.good").nth(0).click()
    settle(page)
    assert list(pressed(page).values()) == ["good"]
    assert page.is_visible("#verdicts-lost") is (kept == "throws")
    assert [one.verdict for one in read_verdicts(downloaded(page, tmp_path))] == ["good"]
    context.close()
    assert not errors


NAMES = ["=cmd|' /C calc'!A0.png", 'a"b,c;d.png', "'quoted.png", "-1", "@x.png", "<b>x</b>.png", "a\nb.png", "工具.png"]


def test_names_that_are_formulas_or_hold_separators_come_back_whole(opened, uniad, tmp_path):
    rows = [{**empty_row(broken_item(name, ""), 1.0, ""), "score": 0.5, "size": 1} for name in NAMES]
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "predictions.jsonl").write_bytes(b"".join(map(journal_line, rows)))
    (folder / "predictions.json").write_text(json.dumps({"ckpt_path": "/gone.ckpt", "input": "-"}))
    page = opened(write_report([folder], maps=False, limit=0).page)
    for button in page.locator("#cards .review.good").all():
        button.click()
    file = downloaded(page, tmp_path)
    cells = file.read_text(encoding="utf-8-sig").splitlines()[1:]
    assert not [text for text in cells if text.startswith(("=", "@", '"=', '"@'))]
    status, _, err = uniad("feedback", f"predictions={folder}", f"verdicts={file}")
    assert (status, err) == (0, "")
    assert set(latest(read_history(folder))) == set(NAMES)


def test_only_predictions_are_reviewed(evaluated, opened):
    page = opened(evaluated)
    assert page.is_hidden("#verdicts")
    assert page.locator("#cards .review").count() == 0
    page.locator("#cards .card").nth(0).focus()
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    page.keyboard.press("d")
    assert page.is_visible("#viewer")
    assert page.is_hidden("#viewer-reviews")
    assert "verdict" not in page.locator("#decision").inner_text()


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (390, 844)])
def test_verdicts_can_be_read_and_pressed_at_every_width(predicted, opened, width, height):
    page = opened(predicted / "report.html", width=width, height=height)
    page.locator("#cards .review.good").nth(0).click()
    page.locator("#cards .review.defective").nth(1).click()
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    low = [text for text in contrasts(page) if text["ratio"] < 4.5]
    assert not low
    for button in page.locator("#cards .review, #verdicts button, #reviewer").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, 2.5.8
    page.fill("#reviewer", "12")  # keys that elsewhere change what is shown
    assert page.is_checked("input[name=view][value=image]")
