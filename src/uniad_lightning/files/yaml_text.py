"""The text of a YAML file, refused where loading it would take all memory or end in an error that names no file."""

from pathlib import Path

import yaml

from uniad_lightning.errors import InputError, one_line, system_reason

MOST_LEVELS = 64  # of nested mappings and lists: the loader calls itself for each
MOST_VALUES = 100_000  # with aliases written out: ten lines of ten aliases each are 10^10 values


def read_yaml(path: Path, name: str) -> str:
    """The text of a YAML file in UTF-8 that can be loaded.

    Raises InputError that begins with `name` for a file that cannot be read, another encoding, a mistake in its syntax,
    more than `MOST_LEVELS` levels, and more than `MOST_VALUES` values.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        _refuse_bomb(text, name)
    except OSError as error:
        raise InputError(f"{name}: cannot be read; {system_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{name}{place}: {getattr(error, 'problem', None) or one_line(error)}") from None
    return text


def has_aliases(path: Path) -> bool:
    """Whether a file may hold YAML's anchors and aliases; False for one that cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return b"&" in content and b"*" in content


def _refuse_bomb(text: str, name: str) -> None:
    """Count the values of a YAML text as if its aliases were written out."""
    total = 0
    sizes: dict[str | None, int] = {}  # by anchor
    unfinished: list[tuple[str | None, int]] = []  # anchor and beginning of each mapping or list that is open
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # within what it stands for
                raise InputError(f"{name}: its alias *{event.anchor:.40} stands for what holds it; write the values")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            unfinished.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = unfinished.pop()
            sizes[anchor] = total - before
        if len(unfinished) > MOST_LEVELS:
            raise InputError(f"{name}: is nested more than {MOST_LEVELS} levels deep; expected settings")
        if total > MOST_VALUES:
            raise InputError(f"{name}: has more than {MOST_VALUES} values, its aliases written out; expected settings")
