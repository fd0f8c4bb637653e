"""Pages that explain every key of `conf/`, from the YAML files and the signatures of what they build.

One source of truth: a meaning is the comment beside a key, as in `uniad COMMAND --help`, a type that of the argument.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from config_keys import Key, keys
from uniad_lightning.command_line.commands import COMMANDS
from uniad_lightning.command_line.key_help import groups
from uniad_lightning.settings import conf_dir

LEGEND = (
    "P is the paper (Sec., Eq., Table or Fig. of it), R the reference implementation. Values in the form `${...}` are "
    "taken from other keys; `???` has to be given; `null` is none. `uniad {command} --cfg job` prints all values."
)
# The files that define the keys which experiments, recipes and the like change.
DEFINING = (
    "train", "model/uniad", "data/mvtec", "backbone/timm", "trainer/default", "optimizer/adamw", "schedule/drop",
    "score/max",
)  # fmt: skip
FOLLOWING = {
    "for_data": "Not chosen by itself: `data=NAME` brings the file of its name; data of your own take `for_data=NAME`.",
    "method": "Not chosen by itself: `model=NAME` brings the file of its name.",
    "published": "Not chosen by itself: `model=NAME` brings the file of its name, which data and recipes may overrule.",
    "sizes": "Not chosen by itself: `experiment=NAME model=MODEL` brings the file `NAME_MODEL`.",
    "steps": "Not chosen by itself: `trainer=NAME` brings the file of its name.",
}


class Reference(NamedTuple):
    """Markdown of the pages by their address below `config/`."""

    index: dict[str, str]
    commands: dict[str, str]
    groups: dict[str, str]


@cache
def reference() -> Reference:
    """All pages: the list of commands and groups, one for each command and one for each folder of `conf/`."""
    folders = sorted({path.parent for path in conf_dir().rglob("*.yaml")} - {conf_dir()})
    commands = {address(name): _command_page(name) for name in COMMANDS}
    of_groups = {address(_group_of(folder)): _group_page(folder) for folder in folders}
    return Reference({"index.md": _index(folders)}, commands, of_groups)


def address(group: str) -> str:
    """The file name of the page of a command or a group, such as data-defects.md of data/defects."""
    return f"{group.replace('/', '-')}.md"


def _group_of(folder: Path) -> str:
    return folder.relative_to(conf_dir()).as_posix()


def _index(folders: list[Path]) -> str:
    commands = [f"| [`uniad {name}`]({address(name)}) | {escaped(COMMANDS[name].meaning)} |" for name in COMMANDS]
    chosen = []
    for group in map(_group_of, folders):
        options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        chosen.append(f"| [`{group}`]({address(group)}) | {', '.join(f'`{option}`' for option in options)} |")
    return "\n".join(
        [
            "# Every key",
            "",
            "Made of the YAML files in `conf/` when the site is built. A command takes `key=value`, its own keys and"
            " those of its groups, as in `model.neighbor_size=5`; `group=option` takes another file of a group.",
            "",
            "## Commands",
            "",
            "| command | |",
            "|---|---|",
            *commands,
            "",
            "## Groups",
            "",
            "| group | options |",
            "|---|---|",
            *chosen,
        ]
    )


def _command_page(name: str) -> str:
    path = conf_dir() / f"{name}.yaml"
    lines = [f"# `uniad {name}`", "", *_head(path.read_text(encoding="utf-8")), "", LEGEND.replace("{command}", name)]
    lines += ["", *_table(keys(path, ""))]
    chosen = groups(name)
    if chosen:
        lines += ["", "## Groups", "", "| group | chosen where nothing is said |", "|---|---|"]
        lines += [f"| [`{group}`]({address(group)}) | {_option(group, option)} |" for group, option in chosen.items()]
    return "\n".join(lines)


def _option(group: str, option: str | None) -> str:
    return "none" if option is None else f"[`{option}`]({address(group)}#{option})"


def _group_page(folder: Path) -> str:
    group = _group_of(folder)
    users = [name for name in COMMANDS if group in groups(name)]
    lines = [f"# `{group}=`", ""]
    if group in FOLLOWING:
        lines += [FOLLOWING[group], ""]
    elif users:
        lines += [f"A group of {', '.join(f'[`uniad {name}`]({address(name)})' for name in users)}.", ""]
    lines += [LEGEND.replace("{command}", users[0] if users else "train"), ""]
    for path in sorted(folder.glob("*.yaml")):
        lines += _option_section(path, group)
    return "\n".join(lines)


def _option_section(path: Path, group: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    package = re.match(r"# @package (\S+)\n", text)
    prefix = package[1] if package else group.replace("/", ".")
    prefix = "" if prefix == "_global_" else f"{prefix.removeprefix('_global_.')}."
    lines = [f"## `{path.stem}` {{ #{path.stem} }}", "", *_head(text[package.end() :] if package else text), ""]
    built = re.search(r"^_target_: (\S+)", text, re.MULTILINE)
    lines += [f"Builds `{built[1]}`.", ""] if built else []
    found = keys(path, prefix) if built else [_explained(key, path.stem) for key in keys(path, prefix)]
    return [*lines, *_composed_of(text, group), "", *_table(found), ""]


def _explained(key: Key, model: str) -> Key:
    """A key that a file changes, with the type and meaning that the file has for it that defines it."""
    for option in (f"model/{model}", *DEFINING):
        path = conf_dir() / f"{option}.yaml"
        prefix = f"{option.partition('/')[0]}." if "/" in option else ""
        for defined in keys(path, prefix) if path.is_file() else ():
            if defined.name == key.name:
                meaning = re.sub(r"^[PR]\b[^:;]*([:;] |$)", "", defined.meaning)  # the source is of the value there
                return key._replace(type=defined.type, meaning=key.meaning or meaning)
    return key


def _composed_of(text: str, group: str) -> list[str]:
    """What the list of defaults says, in words."""
    said = []
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        name, option = (group, entry) if isinstance(entry, str) else next(iter(entry.items()))
        other = name.split()[-1].partition("@")[0].lstrip("/")  # without override, optional and the package
        shown = f"`{other}={option}`"
        if (conf_dir() / other / f"{option}.yaml").is_file():
            said.append(f"[{shown}]({address(other)}#{option})")
        elif entry != "_self_":
            said.append(shown)
    return [f"Starts from {', '.join(said)}."] if said else []


def _head(text: str) -> list[str]:
    """The comment at the top of a file as Markdown: its sentences, and its commands as code."""
    lines: list[str] = []
    for line in re.match(r"(?:#.*\n)*", text)[0].splitlines():  # type: ignore[index] - it matches the empty text
        said = line.removeprefix("#").removeprefix(" ")
        sentence, _, command = ("", "", said.strip()) if said.startswith("  ") else said.partition("    ")
        command, _, note = command.partition("    ")
        lines += [text_of(sentence)] if sentence else []
        if command and not sentence and lines[-1:] == ["```"]:  # goes on with the block of the line before
            lines[-1:] = [command, "```"]
        elif command:
            lines += ["", "```bash" if "uniad " in command else "```", command, "```"]
        lines += ["", text_of(note.strip(" ()"))] if note else []
    return lines


def _table(found: list[Key]) -> list[str]:
    """A row for each key; without the column of types where none is known."""
    if not found:
        return []
    columns = ["key", "value", *(["type"] if any(key.type for key in found) else []), "meaning"]
    rows = [
        {
            "key": f"`{key.name}`",
            "value": key.value and _value(key.value),
            "type": key.type,
            "meaning": text_of(key.meaning),
        }
        for key in found
    ]
    lines = [f"| {' | '.join(row[column] for column in columns)} |" for row in rows]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines]


def _value(value: str) -> str:
    """A value as code; a long list of words may be broken behind its commas."""
    if len(value) < 40 or " " in value:
        return f"`{value}`"
    return f"<code>{escaped(value).replace(',', ',<wbr>')}</code>"


def text_of(comment: str) -> str:
    """A comment as Markdown: what stands in backticks stays, pages of docs/ are linked, all else is plain text."""
    parts = comment.split("`")
    parts[::2] = [re.sub(r"\bdocs/(\w+)\.md", r"[\1](../\1.md)", escaped(part)) for part in parts[::2]]
    return "`".join(parts)


def escaped(text: str) -> str:
    """Text without what Markdown or HTML would read in it."""
    return re.sub(r"([\\*_\[\]|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
