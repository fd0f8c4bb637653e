"""Python, the packages that are needed and those of the extras, beside what the installed package asks for."""

import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from uniad_lightning import __version__
from uniad_lightning.doctor.findings import BROKEN, NOTE, OK, Finding

NAME = "uniad-lightning"
NAMED = ("torch", "lightning", "hydra-core", "timm")  # have a line each; the others one together
NOT_FOR_USE = ("dev",)  # extras that work on the package itself


def versions() -> Iterator[Finding]:
    """This package, Python, and every package that is needed: whether it is there, can be imported, and is in range."""
    yield Finding(OK, NAME, __version__)
    own = installed(NAME)
    if own is None:
        yield Finding(
            NOTE, "installation", "is run from a copy of its files, so what it needs is not known", "pip install -e ."
        )
        return
    yield _python(own)
    needed = [found for found in _requirements(own) if found.marker is None or found.marker.evaluate({"extra": ""})]
    findings = {requirement.name: _needed(requirement) for requirement in needed}
    yield from (found for name, found in findings.items() if name in NAMED or found.state == BROKEN)
    others = [name for name, found in findings.items() if name not in NAMED and found.state == OK]
    yield Finding(OK, "other packages", f"{len(others)} as they should be ({', '.join(others)})")


def extras() -> Iterator[Finding]:
    """Each extra: what it lacks, with the command that adds it."""
    own = installed(NAME)
    for extra in [] if own is None else own.metadata.get_all("Provides-Extra") or []:
        if extra in NOT_FOR_USE or own is None:
            continue
        parts = [found for found in _requirements(own) if found.marker and not found.marker.evaluate({"extra": ""})]
        lacking = [fault for part in parts if part.marker and part.marker.evaluate({"extra": extra})
                   for fault in [_fault(part)] if fault]  # fmt: skip
        if lacking:
            yield Finding(NOTE, f"extra {extra}", ", ".join(lacking), f"pip install '{NAME}[{extra}]'")
        else:
            yield Finding(OK, f"extra {extra}", "installed")


def installed(name: str) -> Distribution | None:
    """The metadata of an installed package; None where there is none."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _python(own: Distribution) -> Finding:
    wanted = "".join(own.metadata.get_all("Requires-Python") or [])
    inside = SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    remedy = "" if inside else f"install it with a Python {wanted}"
    return Finding(OK if inside else BROKEN, "python", platform.python_version(), remedy)


def _requirements(own: Distribution) -> list[Requirement]:
    return [Requirement(text) for text in own.requires or []]


def _needed(requirement: Requirement) -> Finding:
    fault = _fault(requirement)
    if fault:
        return Finding(BROKEN, requirement.name, fault, f"pip install '{requirement.name}{requirement.specifier}'")
    there = installed(requirement.name)
    return Finding(OK, requirement.name, there.version if there else "")


def _fault(requirement: Requirement) -> str:
    """What is wrong with a required package, in words; empty where nothing is."""
    there = installed(requirement.name)
    if there is None:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(there.version, prereleases=True):
        return f"{requirement.name} is {there.version}, expected {requirement.specifier}"
    if not any(_can_be_found(module) for module in _modules().get(_plain(requirement.name), [requirement.name])):
        return f"{requirement.name} {there.version} is installed and cannot be imported"
    return ""


def _can_be_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@cache
def _modules() -> dict[str, list[str]]:
    """The modules at the top of each installed package, by its name as `_plain` writes it."""
    modules: dict[str, list[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            modules.setdefault(_plain(name), []).append(module)
    return modules


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
