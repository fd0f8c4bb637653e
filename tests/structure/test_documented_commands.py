"""Every command in the documents is one that exists: its words compose, or it is marked with the reason."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import uniad_lightning.command_line.job_folders
import uniad_lightning.training.resolvers  # noqa: F401 - both register what the YAML files compute
from support.documents import DOCUMENTS, commands, files_named, inline_commands
from support.paths import ROOT
from uniad_lightning.command_line.commands import CACHE, COMMANDS, DOCTOR_OPTIONS, OTHERS, REPORT_OPTIONS, TABLES
from uniad_lightning.command_line.parsing import data_options, parse
from uniad_lightning.sweeps.search import register

VERBS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
ELLIPSIS = "..."  # words that are left out


def single(words):
    """The overrides of each job: of a sweep every value once, of a space the value where it begins."""
    overrides = OverridesParser.create().parse_overrides(words)
    choices = []
    for word, override in zip(words, overrides, strict=True):
        if not override.is_sweep_override():
            choices.append([word])
        elif override.is_interval_sweep():
            choices.append([f"{override.get_key_element()}={override.value().start}"])
        else:
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
    return [
        [options[min(i, len(options) - 1)] for options in choices] for i in range(max(map(len, choices), default=1))
    ]


def check_hydra(name, words, *, whole):
    """Compose every job of a command; `whole`: nothing may be missing. Lets every error through."""
    line = parse(name, words)
    swept = "--multirun" in line.options or any(word.startswith("sweep=") for word in words)
    for overrides in single(line.overrides) if swept else [line.overrides]:
        GlobalHydra.instance().clear()
        with initialize_config_dir(line.folder, version_base="1.3"):
            cfg = compose(line.config_name, overrides)
        given = OmegaConf.to_container(cfg, resolve=False)  # what of it a method does not use refers to nothing
        missing = list(missing_keys(given))
        assert not (whole and missing), f"{missing} are missing"


def missing_keys(values, prefix=""):
    """The keys below which a value has to be given."""
    for key, value in values.items():
        if value == "???":
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from missing_keys(value, f"{prefix}{key}.")


def check_other(name, words):
    """Check a command that is no application of Hydra."""
    if name == "data":
        assert {word for word in words if "=" not in word} <= {*data_options()}
        assert all(re.match(r"data\.[\w.]+=|check=true$|out=", word) for word in words if "=" in word)
    elif name == "table":
        assert not words or words[0] in TABLES
        assert all(word.startswith("out=") for word in words[1:] if "=" in word)
    else:
        options = {"report": REPORT_OPTIONS, "doctor": DOCTOR_OPTIONS, "drift": ()}[name]
        assert all(word.startswith(options) for word in words if "=" in word)


def check(words, *, whole=True):
    """Raise for a command that does not exist; `whole`: nor for one that lacks a value."""
    program, *rest = words
    given = [word for word in rest if word != ELLIPSIS]
    if program == "make":
        assert {word for word in given if "=" not in word} <= VERBS
    elif program == "python":
        for path in files_named(words):
            source = path.read_text()
            assert all(f'"{option}"' in source for option in re.findall(r"--[\w-]+", " ".join(given)))
    elif given[0] in OTHERS:
        check_other(given[0], given[1:])
    elif given[0] == CACHE and all(word.startswith("keep=") for word in given[1:]):
        assert all(re.fullmatch(r"keep=\d+GB", word) for word in given[1:])
    else:
        assert given[0] in COMMANDS
        check_hydra(given[0], given[1:], whole=whole and ELLIPSIS not in rest)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    register()
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_a_block_composes(path):
    for command in commands(path.read_text(encoding="utf-8")):
        if not command.marked:
            try:
                check(command.words)
            except Exception as error:
                pytest.fail(f"{' '.join(command.words)}: {error}")


@pytest.mark.slow
def test_every_command_within_a_sentence_composes():
    found = set().union(*(inline_commands(path.read_text(encoding="utf-8")) for path in DOCUMENTS))
    assert len(found) > 50
    for words in sorted(found):
        try:
            check(words, whole=False)
        except Exception as error:
            pytest.fail(f"{' '.join(words)}: {error}")


def test_a_command_that_does_not_exist_is_found():
    text = """
Text with `uniad train model.neighbour_size=3` in it.

    uniad train experiment=demo model.neighbor_size=3,5
    uniad train experiment=demo \\
        model.neighbour_size=3  # misspelt
    make everything

<!-- not run: needs another file -->

    uniad train experiment=mine

```bash
words="experiment=demo seed=1"
MODE=1 uniad train $words && uniad evaluate
python scripts/train.py --fast; cd elsewhere
torchrun --nproc-per-node 2 --no-python uniad predict ... input=photos
```
"""
    found = commands(text)
    assert [command.words[0] for command in found] == [
        "uniad", "uniad", "make", "uniad", "uniad", "uniad", "python", "uniad"
    ]  # fmt: skip
    assert [command.marked for command in found] == [False, False, False, True, False, False, False, False]
    assert found[4].words == ("uniad", "train", "experiment=demo", "seed=1")
    fine = []
    for command in found:
        try:
            check(command.words)
        except Exception:
            continue
        fine.append(" ".join(command.words))
    assert fine == ["uniad train experiment=demo seed=1", "uniad predict ... input=photos"]
    (misspelt,) = inline_commands(text)
    with pytest.raises(Exception, match="neighbour_size"):
        check(misspelt, whole=False)
