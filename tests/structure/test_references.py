"""What documents, notebooks, benchmarks and configuration name of the repository is there."""

import re
from pkgutil import resolve_name

import pytest

from support.paths import ROOT

TEXTS = [
    path
    for pattern in ("*.md", "docs/*.md", "notebooks/*.ipynb", "benchmarks/*.py", "scripts/*.py", "conf/**/*.yaml")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
]


def _exists(name):
    try:
        resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def _id(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEXTS, ids=_id)
def test_modules_and_names_exist(path):
    text = path.read_text().replace("\\n", "\n")
    names = {name.rstrip(".") for name in re.findall(r"\buniad_lightning(?:\.\w+)+", text)}
    for module, imported in re.findall(r"from (uniad_lightning[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{name.split(' as ')[0].strip()}" for name in imported.split(",") if name.strip()}
    for name in sorted(names):
        assert _exists(name), name


@pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix == ".md"], ids=_id)
def test_linked_and_named_files_exist(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`((?:[\w]+/)+[\w]+\.(?:py|yaml|md))`", text):
        places = (ROOT, ROOT / "src/uniad_lightning", path.parent)
        if name.split("/")[0] not in ("my", "runs", "RUN", "sweeps") and "NAME" not in name:
            assert any((place / name).exists() for place in places), name
