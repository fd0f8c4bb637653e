"""The page at `/`, in a browser: a dropped picture and its decision, the keyboard, a narrow screen, a token."""

import base64
import re

import pytest

from support.browser import page_of
from support.servers import InThread
from uniad_lightning import Detector

DROP = """([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, {type: "image/png"}));
    return carried;
}"""


def drop(page, path):
    text = base64.b64encode(path.read_bytes()).decode()
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(DROP, [path.name, text])})


def test_the_page_needs_nothing_from_elsewhere(server):
    answer = server.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"(?:https?:)?//[\w.]+/|@import|url\(", answer.text)


@pytest.mark.slow
def test_a_dropped_picture_gets_its_decision(browser, server, checkpoint, pictures):
    detector = Detector.load(checkpoint, device="cpu")
    with page_of(browser) as page:
        page.goto(server.url)
        for place in (0, -1):
            inspection = detector.predict(pictures[place])
            drop(page, pictures[place])
            card = page.locator("li").first
            shown = card.locator("[data-decision]")
            shown.wait_for()
            assert shown.inner_text() == inspection.decision
            assert f"{inspection.normalised:.3f}" in card.inner_text()
            assert inspection.category in card.inner_text()
            assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 72
        assert page.locator("#status").inner_text() == "2 inspected"


@pytest.mark.slow
def test_the_keyboard_is_enough(browser, server, pictures):
    with page_of(browser) as page:
        page.on("filechooser", lambda _: None)  # Playwright asks for it late: without a listener, the first may pass it
        page.goto(server.url)
        page.keyboard.press("Tab")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(pictures[:1])
        page.locator("[data-decision]").wait_for()
        page.focus("#clear")
        page.keyboard.press("Tab")  # on to the picture
        image = page.locator("li img")
        assert image.get_attribute("src").startswith("data:image/png")
        page.keyboard.press("Space")
        assert image.get_attribute("src").startswith("blob:")
        page.focus("#clear")
        page.keyboard.press("Enter")
        assert page.locator("li").count() == 0


@pytest.mark.slow
def test_a_narrow_screen_shows_all_of_it(browser, server, pictures):
    with page_of(browser, width=390, height=844) as page:
        page.goto(server.url)
        page.set_input_files("#files", pictures[:3])
        page.locator("[data-decision]").nth(2).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
def test_a_token_is_asked_for_and_a_refusal_told(browser, checkpoint, pictures, tmp_path):
    wrong = tmp_path / "<b>notes</b>.png".replace("/", "")
    wrong.write_text("no image")
    with InThread(checkpoint, "token=s3cret") as server:
        page = browser.new_context().new_page()  # not `page_of`: the browser reports each refusal as an error
        page.goto(server.url)
        page.set_input_files("#files", [pictures[0], wrong])
        for given in ("other", "s3cret"):
            page.locator("#token").fill(given)
            page.keyboard.press("Enter")
        page.locator("[data-decision]").wait_for()
        page.locator(".failed").wait_for()
        assert "not an image" in page.locator("li", has=page.locator(".failed")).inner_text()
        assert page.locator("#results b").count() == 1  # the mark of the boundary, none of the file's name
        assert page.locator("#status").inner_text() == "1 inspected, 1 not"
        page.context.close()


@pytest.mark.slow
def test_a_refusal_that_comes_after_another_token_was_given_does_not_ask_again(browser, checkpoint, pictures):
    with InThread(checkpoint, "token=s3cret") as server:
        page, late = browser.new_context().new_page(), []

        def route(asked):
            if "s3cret" in asked.request.headers.get("authorization", ""):
                asked.continue_()
            elif not late:
                late.append(asked)
            else:
                asked.fulfill(status=401)

        page.goto(server.url)
        page.route("**/predict*", route)
        page.set_input_files("#files", pictures[:2])
        page.locator("#token").fill("s3cret")
        page.keyboard.press("Enter")
        page.locator("[data-decision]").wait_for()
        late[0].fulfill(status=401)
        page.locator("[data-decision]").nth(1).wait_for()
        assert page.locator("#entry").is_hidden()
        page.context.close()
