"""The page in a browser can be read and used by everyone, on paper too; names steer nothing, and it asks no network."""

import csv

import pytest

from support.browser import page_of
from support.contrast import contrasts
from uniad_lightning.report.write import write_report

pytestmark = pytest.mark.slow


def test_the_keyboard_is_enough(evaluated, opened):
    page = opened(evaluated)
    page.focus("#cards .card")
    page.wait_for_selector("#cards li:first-child canvas")  # the overlay of what has the focus
    paths = page.locator("#cards .path").all_inner_texts()
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-title") == paths[0]
    assert page.locator("#stage .pane").count() == 4
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-title") == paths[1]
    page.keyboard.press("3")
    assert page.locator("#stage .pane").all_inner_texts() == ["map"]
    page.keyboard.press("+")
    assert float(page.evaluate("document.getElementById('stage').style.getPropertyValue('--z')")) == 1.5
    page.keyboard.press("Escape")
    assert page.is_hidden("#viewer")
    assert page.evaluate("document.activeElement.querySelector('.path')?.textContent") == paths[1]
    page.keyboard.press("3")
    page.wait_for_function("() => document.querySelectorAll('#cards li:nth-child(n+3) canvas').length > 3")
    page.focus("#product")
    for _ in range(30):  # everything that acts has a visible place in the order of the tab key
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.checkVisibility()")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1024, 768), (1920, 1080)])
def test_it_can_be_read_at_every_width(evaluated, opened, width, height):
    page = opened(evaluated, width=width, height=height)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = contrasts(page)
    page.click("#cards .card")
    page.wait_for_selector("#stage .pane")
    found += contrasts(page)
    assert len(found) > 100
    poor = [one for one in found if one["ratio"] < 4.5]  # WCAG 2.2, 1.4.3, without its exception for large text
    assert poor == []
    assert min(one["size"] for one in found) >= 11
    box = page.locator("#viewer").bounding_box()
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_the_contrast_test_can_fail(evaluated, opened):
    page = opened(evaluated)
    page.eval_on_selector("h1", "(node) => { node.style.color = '#999'; }")
    assert [one["text"] for one in contrasts(page) if one["ratio"] < 4.5] == ["Inspection report"]


def test_controls_have_names(evaluated, opened):
    page = opened(evaluated)
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, input, select')].filter((one) => !(one.textContent.trim() || "
        "one.getAttribute('aria-label') || one.labels?.length)).map((one) => one.outerHTML)"
    )
    assert nameless == []


def test_it_asks_no_network(runs, browser, tmp_path):
    path = write_report([runs / "evaluated"], out=tmp_path, images="beside", device="cpu").page
    with page_of(browser) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#cards .card img")
        page.click("#cards .card")
        page.wait_for_function("() => document.querySelector('#stage img')?.naturalWidth === 72")  # the file beside it
    kinds = {url.partition(":")[0] for url in asked}
    assert kinds <= {"file", "data"}
    assert any("report_files" in url for url in asked)


def test_it_prints_what_is_to_be_read(evaluated, opened):
    page = opened(evaluated)
    page.emulate_media(media="print")
    assert page.is_hidden("#slider")
    assert page.is_visible("#products")
    assert page.evaluate("getComputedStyle(document.querySelector('.control')).position") == "static"
    assert page.pdf(format="A4")[:5] == b"%PDF-"


MARKUP = [
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)</script>.png",
    "&lt;b&gt;.png",
    "{{ 7 * 7 }}.png",
]


def test_names_with_markup_in_them_stay_text(opened, tmp_path):
    folder = tmp_path / "<b>run"
    folder.mkdir()
    rows = [[name, f"<i>{i % 2}</i>", ("good", "defective")[i % 2], i, ""] for i, name in enumerate(MARKUP)]
    with (folder / "test_scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "category", "label", "score", "decision"], *rows])
    (folder / "config.yaml").write_text("name: '</pre><script>alert(3)</script>'\n")
    path = write_report([folder], maps=False).page
    page = opened(path)
    assert sorted(page.locator("#cards .path").all_inner_texts()) == sorted(MARKUP)
    page.click("#cards .card")
    assert page.inner_text("#viewer-title") in MARKUP
    assert page.locator("script").count() == 2
    assert page.locator("main b b, main i, img[onerror]").count() == 0
    assert page.title() == "<b>run – inspection report"
    assert "alert(3)" in page.locator("pre").text_content()
