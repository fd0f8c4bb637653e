"""`uniad doctor [hub=true] [cache_dir=DIR] [output_dir=DIR]`: a line for each check of this machine.

What a check needs is imported when its turn comes, so that a package that is missing is named and not a traceback.
"""

import os
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import NamedTuple

from uniad_lightning.command_line.commands import DOCTOR_OPTIONS
from uniad_lightning.doctor.findings import BROKEN, Finding
from uniad_lightning.errors import InputError, did_you_mean, one_line, print_stdout

_USAGE = "uniad doctor [hub=true] [cache_dir=DIR] [output_dir=DIR]"
_CACHE = "~/.cache/uniad-lightning"


class Check(NamedTuple):
    """A function of a module of `doctor`, and what it is given."""

    module: str
    function: str
    given: dict[str, str] = {}  # noqa: RUF012 - a default that nobody changes


def show_doctor(arguments: list[str]) -> bool:
    """Print what each check found; False where something that is needed is broken.

    Nobody is asked over the network without `hub=true`. Raises InputError for other arguments.
    """
    options = _options(arguments)
    checks = [
        Check("versions", "versions"),
        Check("versions", "extras"),
        Check("devices", "devices"),
        Check("places", "places", {name: options[name] for name in ("cache_dir", "output_dir")}),
        Check("weights", "weights"),
        *([Check("weights", "hub")] if options["hub"] == "true" else []),
        Check("inference", "inference"),
    ]
    broken = 0
    for check in checks:
        for finding in _findings(check):
            print_stdout(finding.line, flush=True)
            broken += finding.state == BROKEN
    print_stdout(f"{broken} broken" if broken else "nothing that is needed is broken")
    return not broken


def _findings(check: Check) -> Iterable[Finding]:
    """Those of a check; one that is broken where it cannot be made, as without one of the packages it imports."""
    try:
        function: Callable[..., Iterable[Finding] | Finding] = getattr(
            import_module(f"uniad_lightning.doctor.{check.module}"), check.function
        )
        found = function(**check.given)
        yield from [found] if isinstance(found, Finding) else found
    except Exception as error:  # the installation may lack or break anything
        if os.environ.get("UNIAD_DEBUG") == "1":
            traceback.print_exception(error)
        yield Finding(
            BROKEN,
            check.function,
            f"cannot be checked ({one_line(error)})",
            "pip install --force-reinstall what it names",
        )


def _options(arguments: list[str]) -> dict[str, str]:
    options = {"hub": "false", "cache_dir": os.environ.get("UNIAD_CACHE") or _CACHE, "output_dir": "runs"}
    known = [option.partition("=")[0] for option in DOCTOR_OPTIONS]
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in options or not value:
            raise InputError(f"uniad doctor {argument}: no such option.{did_you_mean(key, known)} Expected {_USAGE}")
        options[key] = value
    if options["hub"] not in ("true", "false"):
        raise InputError(f"uniad doctor hub={options['hub']}: expected true or false")
    return options
