"""`uniad COMMAND --help`: the keys of a command with what their file says of them, and the options of its groups."""

import re
import textwrap

import yaml

from uniad_lightning.settings import conf_dir

_WIDTH = 100


def key_help(name: str) -> str:
    """The text of `uniad NAME --help` for the command whose configuration is conf/NAME.yaml."""
    text = (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition("defaults:\n")
    keys = re.sub(r"\A(?:  .*\n)*\n*|^hydra:\n(?:  .*\n)*", "", rest, flags=re.MULTILINE)  # without what composes them
    groups = [_group(group) for group in _groups(text)]
    lines = [head.removeprefix("# ").rstrip(), "", keys.rstrip()]
    if groups:
        lines += [
            "",
            "# Groups, as group=option; their keys stand in the files of conf/, as in group.key=value.",
            *groups,
        ]
    lines += ["", f"# uniad {name} --cfg job prints all keys with their values; --hydra-help Hydra's own options."]
    return "\n".join(lines)


def _groups(text: str) -> list[str]:
    """The groups that a user chooses from; `optional` ones follow from the others."""
    entries = [entry for entry in yaml.safe_load(text)["defaults"] if isinstance(entry, dict)]
    names = [next(iter(entry)) for entry in entries]
    return [name for name in names if name != "hydra" and not name.startswith(("override ", "optional "))]


def _group(name: str) -> str:
    options = ", ".join(sorted(path.stem for path in (conf_dir() / name).glob("*.yaml")))
    return textwrap.fill(f"{name}: {options}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
