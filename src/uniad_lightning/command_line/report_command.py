"""`uniad report RUN [RUN...] [key=value ...]`: one page over run folders, for a person."""

import re
from pathlib import Path

from uniad_lightning.command_line.commands import REPORT_OPTIONS
from uniad_lightning.errors import InputError, did_you_mean, print_stderr, print_stdout
from uniad_lightning.files.user_path import expand
from uniad_lightning.report.write import LIMIT, write_report

OPTIONS = tuple(dict.fromkeys(option.partition("=")[0] for option in REPORT_OPTIONS))
_USAGE = (
    "uniad report RUN [RUN...] [out=DIR] [images=thumbnails|embedded|beside] [maps=true|false] [device=auto] "
    f"[limit={LIMIT}]"
)


def show_report(arguments: list[str]) -> bool:
    """Write the page over the given folders and print where it is; False if an image could not be read.

    Raises InputError for folders and options that cannot be used.
    """
    given = [argument for argument in arguments if argument not in ("-h", "--help")]
    if not given:
        print_stdout(f"{_USAGE}; it writes one HTML file over run folders, and report.csv with all scores beside it")
        return True
    options: dict[str, str] = {}
    folders: list[Path] = []
    for argument in given:
        key, equals, value = argument.partition("=")
        if equals and re.fullmatch(r"\w+", key) and not expand(argument).exists():
            options[_known(key, options)] = value
        else:
            folders.append(expand(argument))
    if not folders:
        raise InputError(f"uniad report {' '.join(arguments)}: names no run folder; expected {_USAGE}")
    written = write_report(
        folders,
        out=expand(options["out"]) if options.get("out") else None,
        images=options.get("images", "thumbnails"),
        maps=_truth(options.get("maps", "true")),
        device=options.get("device", "auto"),
        limit=_count(options.get("limit", str(LIMIT))),
    )
    print_stdout(f"page: {written.page} ({written.page.stat().st_size / 1e6:.1f} MB)   scores: {written.table}")
    if written.failed:
        print_stderr(f"warning: {written.failed} images have no picture on the page; the first: {written.reason}")
    return not written.failed


def _known(key: str, options: dict[str, str]) -> str:
    if key not in OPTIONS:
        raise InputError(
            f"uniad report {key}=: no such option.{did_you_mean(key, OPTIONS)} Known: {', '.join(OPTIONS)}"
        )
    if key in options:
        raise InputError(f"uniad report {key}=: is given twice; give it once")
    return key


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise InputError(f"maps={text}: expected true or false")
    return text == "true"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"limit={text}: expected the largest number of images with a picture, such as {LIMIT}")
    return int(text)
