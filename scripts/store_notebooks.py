"""Run the notebooks and store them with their outputs, for readers who do not run them.

    python scripts/store_notebooks.py [notebooks/01_quickstart.ipynb ...]

Each runs in an empty folder. Progress bars are left out, and pictures are made small.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
WIDEST = 900  # pixels of a stored picture


def main() -> None:
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)  # times
                if cell.cell_type == "code":
                    cell.outputs = [stored(output, folder) for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def stored(output: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """An output without the folder that it was made in, its picture as a small JPEG."""
    if "text" in output:
        output.text = output.text.replace(f"{folder}/", "")
    picture = output.get("data", {}).pop("image/png", None)
    if picture is not None:
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        image.thumbnail((WIDEST, 3 * WIDEST))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        output.data["image/jpeg"] = base64.b64encode(buffer.getvalue()).decode()
    return output


if __name__ == "__main__":
    main()
