"""Every notebook runs from top to bottom and defines nothing."""

import ast
import json
import re

import nbformat
import pytest
from nbclient import NotebookClient

from support.paths import ROOT
from support.settings import SMALL

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Only what every network has: notebooks compare them.
QUICK = [word for word in SMALL if word != "trainer=cpu" and (not word.startswith("model.") or "grid" in word)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch, tree):
    settings = [*QUICK, "data=mvtec", f"data.root={tree}", "data.image_size=64", "data.batch_size=4"]
    monkeypatch.setenv("UNIAD_NOTEBOOK_OVERRIDES", " ".join(settings))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_defines_nothing_and_is_stored_with_its_outputs(path):
    """By scripts/store_notebooks.py: pictures, no progress bars, no path of the machine."""
    text = path.read_text()
    assert len(text) < 1_000_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(tmp|home|root|work|Users)/", json.dumps(outputs))
    for cell in cells:
        kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
        assert not [node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, kinds)]
