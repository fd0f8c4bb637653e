"""The documentation as a site: it builds without a warning and without a network, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import uniad_lightning.command_line.job_folders
import uniad_lightning.training.resolvers  # noqa: F401 - both register what the YAML files compute
from support.browser import page_of
from support.configs import CONF
from support.paths import ROOT
from uniad_lightning.command_line.commands import COMMANDS

pytestmark = pytest.mark.slow

NO_NETWORK = """
import sys

def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError(f"the network was used: {event} {arguments}")

sys.addaudithook(guard)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text(NO_NETWORK)
    paths = os.pathsep.join(filter(None, [str(folder / "guard"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "built"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "built"


class Page(HTMLParser):
    """What a page loads by itself, the keys that it explains with their meanings, and its anchors."""

    LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}

    def __init__(self, text):
        super().__init__()
        self.loaded, self.anchors, self.mermaid, self.rows = [], set(), False, []
        self._cells = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        name = self.LOADED.get(tag)
        if name and given.get(name):
            self.loaded.append(given[name])
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given["href"])
        self.anchors.add(given.get("id"))
        self.mermaid |= "mermaid" in (given.get("class") or "")
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self._cells = self.rows[-1]

    def handle_endtag(self, tag):
        if tag == "td":
            self._cells = None

    def handle_data(self, data):
        if self._cells is not None:
            self._cells[-1] += data


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(found) > 50
    return found


def test_every_document_is_a_page(pages):
    documents = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    assert documents | {"index.html", "changelog.html", "contributing.html", "security.html"} <= pages.keys()


def test_no_page_names_a_resource_elsewhere(site, pages):
    for name, page in pages.items():
        assert page.loaded, name
        assert not [url for url in page.loaded if re.match(r"(?:https?:)?//", url)], name
        assert not page.mermaid, f"{name}: the theme would load the library for diagrams from elsewhere"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def values_of(settings, prefix=""):
    """The keys that have a value, each with its dots."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from values_of(value, f"{prefix}{key}.")
        elif not (key.startswith("_") and key.endswith("_")):
            yield f"{prefix}{key}"


def explained(pages, *names):
    """Keys on these pages with their meanings."""
    found = {}
    for name in names:
        for row in pages[name].rows:
            if len(row) >= 3:
                found.setdefault(row[0], row[-1])
    return found


@pytest.mark.parametrize("words", [["experiment=demo"], ["experiment=parts"], ["trainer=ddp", "logger=wandb"]], ids=str)
def test_every_key_of_a_training_is_explained(pages, words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("train", [*words, "data.root=x"]), resolve=False)
    known = explained(pages, "config/train.html", *(name for name in pages if name.startswith("config/")))
    keys = [*values_of(composed)]
    assert len(keys) > 80
    within = {
        key: {key[: dot.start()] for dot in re.finditer(r"\.|$", key)} for key in keys
    }  # a key and those it is in
    assert not [key for key in keys if not within[key] & known.keys()]
    assert known["model.neighbor_size"].startswith("P 4.2: the masked window")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_of_a_command_has_a_meaning(pages, name):
    found = explained(pages, f"config/{name}.html")
    assert found
    assert not [key for key, meaning in found.items() if not meaning.strip()]


def test_links_to_the_configuration_lead_to_the_reference(site, pages):
    linked = re.findall(r'href="(config/[\w./-]+)#?([\w-]*)"', (site / "methods.html").read_text(encoding="utf-8"))
    assert ("config/method.html", "denoiser") in linked
    assert ("config/backbone-published.html", "") in linked
    assert "denoiser" in pages["config/method.html"].anchors


def test_public_names_stand_with_their_docstrings(site, pages):
    anchors = pages["api.html"].anchors
    for name in (
        "inspection.detector.Detector.predict",
        "detectors.base.AnomalyModule.anomaly_map",
        "models.uniad.UniAD",
    ):
        assert f"uniad_lightning.{name}" in anchors
    assert "Inspect one image, or a list of images as one batch." in (site / "api.html").read_text(encoding="utf-8")


@pytest.fixture
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1920])
def test_pages_in_a_browser_speak_with_nobody_else_and_fit(browser, address, width, scheme):
    asked = []
    with page_of(browser, width=width, color_scheme=scheme) as page:
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "tutorial", "concepts", "config/model", "config/train", "api", "commands", "results"):
            page.goto(f"{address}/{name}.html", wait_until="load")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        dark = page.evaluate("document.body.getAttribute('data-md-color-scheme')") == "slate"
        assert dark == (scheme == "dark")
    assert len(asked) > 20
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def test_the_search_finds_a_key(browser, address):
    with page_of(browser) as page:
        page.goto(f"{address}/index.html")
        page.fill("input.md-search__input", "neighbor_size")
        page.wait_for_selector(".md-search-result__link")
        assert page.locator(".md-search-result__link").count() > 0
