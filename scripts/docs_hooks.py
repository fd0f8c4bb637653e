"""What `mkdocs build` calls: pages that are made when the site is built, and links that leave `docs/`.

README.md is the first page. A link to a YAML file leads to its place in the reference of keys, one to any other file of
the repository to a page that shows it, so that the site needs no address of a code host.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import config_reference

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "README.md": "index.md",
    **{f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")},
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")  # text, target, section
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".cff": "yaml", "": "text"}
UNLISTED = "---\nsearch:\n  exclude: true\n---\n\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference of keys in the navigation."""
    index, commands, groups = ([f"config/{name}" for name in part] for part in config_reference.reference())
    nested = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    place = next(entry for entry in nested if "Configuration" in entry)
    place["Configuration"] = [*index, {"Keys of commands": commands}, {"Groups": groups}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {f"config/{name}": text for part in config_reference.reference() for name, text in part.items()}
    made |= {place: _linked((ROOT / name).read_text(encoding="utf-8"), ROOT) for name, place in BESIDE.items()}
    texts = [(path.read_text(encoding="utf-8"), path.parent) for path in (ROOT / "docs").glob("*.md")]
    texts += [((ROOT / name).read_text(encoding="utf-8"), ROOT) for name in BESIDE]
    linked = {path for text, folder in texts for path in _targets(text, folder)}
    made |= {_place(path): _shown(path) for path in sorted(linked) if _place(path).startswith("files/")}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of the pages in `docs/` to the site's own pages."""
    return _linked(markdown, ROOT / "docs") if page.file.generated_by is None else markdown


def _targets(text: str, folder: Path) -> list[Path]:
    """The files and folders of the repository that a page links to."""
    paths = [(folder / target).resolve() for _, target, _ in LINK.findall(text)]
    return [path for path in paths if path.exists() and path.is_relative_to(ROOT)]


def _linked(text: str, folder: Path) -> str:
    def replaced(match: re.Match[str]) -> str:
        said, target, section = match.groups()
        path = (folder / target).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return match[0]  # of which MkDocs says that it leads nowhere
        place, _, option = _place(path).partition("#")
        if path.suffix == ".md" and said.endswith(path.name):
            said = re.match(r"# (.*)", path.read_text(encoding="utf-8"))[1]  # type: ignore[index] - each has a title
        return f"[{said}]({place}{section or (f'#{option}' if option else '')})"

    return LINK.sub(replaced, text)


def _place(path: Path) -> str:
    """Where the site has a file or folder of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in BESIDE:
        return BESIDE[name]
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name == "conf":
        return "config/index.md"
    if name.startswith("conf/"):
        group, _, option = name.removeprefix("conf/").removesuffix(".yaml").rpartition("/")
        if path.is_dir() or not group:
            return f"config/{config_reference.address(f'{group}/{option}'.strip('/'))}"
        return f"config/{config_reference.address(group)}#{option}"
    return f"files/{name.replace('/', '-')}.md"


def _shown(path: Path) -> str:
    """A page that shows a file of the repository, or lists a folder."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        held = sorted(item.name for item in path.iterdir() if not item.name.startswith(("_", ".")))
        return "\n".join([f"{UNLISTED}# `{name}/`", "", *(f"- `{item}`" for item in held)])
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return f"{UNLISTED}`{name}`, without its outputs.\n\n{_notebook(text)}"
    language = LANGUAGES.get(path.suffix, "text")
    return f"{UNLISTED}# `{name}`\n\n````{language}\n{text}\n````\n"


def _notebook(text: str) -> str:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(said if kind == "markdown" else f"````python\n{said}\n````" for kind, said in cells)
