"""CITATION.cff, CONTRIBUTING.md and docs/licences.md say what the package is."""

import re

import yaml

from support.paths import ROOT
from uniad_lightning import __version__
from uniad_lightning.data.layouts.catalogue import CATALOGUE


def test_the_citation_is_of_this_version_and_names_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()  # those that version 1.2.0 of the format requires
    assert (cited["title"], str(cited["version"]), cited["license"]) == ("uniad-lightning", __version__, "Apache-2.0")
    (paper,) = cited["references"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["You", "Cui", "Shen", "Yang", "Lu", "Zheng", "Le"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["year"] == 2022


def test_the_verbs_for_contributors_are_the_makefiles():
    known = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert named <= known
    assert {"setup", "help", "format", "lint", "test", "test-all"} <= named
    assert re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "lint",
        "docs",
        "test",
        "test-slow",
    ]


def test_the_licences_of_data_sets_are_those_of_the_catalogue():
    text = (ROOT / "docs" / "licences.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| \[.*?\]\(.*?\) \| (.*) \|$", text, re.MULTILINE))
    assert rows == {name: published.licence for name, published in CATALOGUE.items()}
    for published in CATALOGUE.values():
        assert f"[{published.title}]({published.source})" in text
