"""The shell commands in the documents, as words.

A block that no test can run or compose has `<!-- not run: WHY -->` on the line before it.
"""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from support.paths import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PROGRAMS = ("uniad", "make", "python")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
_MARK = re.compile(r"<!-- not run: \S.* -->\n+\Z")
_ENVIRONMENT = re.compile(r"[A-Z_]+=")


class Command(NamedTuple):
    """A command of a document: its words from the program on, and whether it is marked as not run."""

    words: tuple[str, ...]
    marked: bool


class Block(NamedTuple):
    """A block of code: its language, '' of an indented one, its text, and whether it is marked as not run."""

    language: str
    text: str
    marked: bool


def blocks(text: str) -> list[Block]:
    """The fenced and indented blocks of a document, in their order."""
    without = _FENCED.sub(lambda found: re.sub(r"[^\n]", "x", found[0]), text)  # at the same places
    fenced = [(found.start(), found[1], found[2]) for found in _FENCED.finditer(text)]
    indented = [
        (found.start(), "", re.sub(r"^ {4}", "", found[0], flags=re.MULTILINE)) for found in _INDENTED.finditer(without)
    ]
    found = sorted(fenced + indented)
    return [Block(language, block, bool(_MARK.search(text[:start]))) for start, language, block in found]


def commands(text: str) -> list[Command]:
    """The commands of `uniad`, `make` and `python` in the blocks of a document."""
    return [
        Command(words, block.marked)
        for block in blocks(text)
        if block.language in ("", "bash")
        for words in _commands_of(block.text)
    ]


def inline_commands(text: str) -> set[tuple[str, ...]]:
    """The commands of `uniad` within sentences and tables, between backticks, but for those with a NAME in them."""
    plain = _FENCED.sub("", text)
    spans = re.findall(r"`(uniad [a-z_]+(?: [^`]*)?)`", plain)
    return {words for span in spans for words in _commands_of(span) if not {"NAME", "--config-dir"} & {*words}}


def _commands_of(block: str) -> Iterator[tuple[str, ...]]:
    given: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        assigned = re.fullmatch(r'(\w+)="([^"]*)"', line.strip())
        if assigned:
            given[assigned[1]] = assigned[2]
            continue
        if not re.search(rf"(?:^|[\s;&|])(?:{'|'.join(PROGRAMS)}) ", line):
            continue
        for name, value in given.items():
            line = line.replace(f"${name}", value)
        yield from _programs(line)


def _programs(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = iter(lexer)
    while part := list(takewhile(lambda word: not re.fullmatch(r"[;&|]+", word), words)):
        part = [word for word in part if not _ENVIRONMENT.match(word)]
        launched = part[:1] in (["torchrun"], ["srun"]) and "uniad" in part
        start = part.index("uniad") if launched else 1 if part[:1] == ["do"] else 0
        if part[start : start + 1] and part[start] in PROGRAMS:
            yield tuple(part[start:])


def files_named(words: tuple[str, ...]) -> list[Path]:
    """The Python files of the repository that a command runs."""
    return [ROOT / word for word in words[1:] if re.fullmatch(r"(?:scripts|benchmarks)/\w+\.py", word)]
