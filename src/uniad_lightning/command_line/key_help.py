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
    chosen = [_group(group) for group in groups(name)]
    lines = [head.removeprefix("# ").rstrip(), "", keys.rstrip()]
    if chosen:
        lines += [
            "",
            "# Groups, as group=option; their keys stand in the files of conf/, as in group.key=value.",
            *chosen,
        ]
    lines += ["", f"# uniad {name} --cfg job prints all keys with their values; --hydra-help Hydra's own options."]
    return "\n".join(lines)


def groups(name: str) -> dict[str, str | None]:
    """The groups that a user of `uniad NAME` chooses from, with the option that is taken where nothing is said.

    Groups that follow from the others (`optional` ones) and Hydra's own are left out.
    """
    defaults = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
    entries = [next(iter(entry.items())) for entry in defaults if isinstance(entry, dict)]
    return {group: option for group, option in entries if group != "hydra" and " " not in group}


def _group(name: str) -> str:
    options = ", ".join(sorted(path.stem for path in (conf_dir() / name).glob("*.yaml")))
    return textwrap.fill(f"{name}: {options}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
