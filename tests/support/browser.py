"""A headless Chromium for tests of pages; a test that wants one is skipped, with the reason, where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, since CI runs as root; the rest keeps the browser from speaking with its maker.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator:
    """A browser, as Playwright's `Browser`, closed at the end of the block. Skips the test where it cannot be had."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is a program")
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*QUIET])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser, *, width: int = 1280, height: int = 900, **options) -> Iterator:
    """A new page of `browser` that fails the test, at the end of the block, for any error of its JavaScript."""
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    try:
        yield page
    finally:
        context.close()
    assert not errors, errors
