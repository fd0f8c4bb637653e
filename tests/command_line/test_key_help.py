"""`uniad COMMAND --help` explains every key of the command and lists the options of its groups."""

import pytest
import yaml

from uniad_lightning.command_line.commands import COMMANDS
from uniad_lightning.settings import conf_dir


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_and_every_group_is_there(command, name):
    status, out, err = command(name, "--help")
    assert (status, err) == (0, "")
    settings = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text())
    lines = out.splitlines()
    for key in settings.keys() - {"defaults", "hydra"}:
        assert any(line.startswith(f"{key}:") for line in lines), key
    assert not any(line.startswith(("defaults:", "hydra:", "  - ")) for line in lines)
    assert out.count(f"uniad {name}") >= 2  # an example, and how to see all values


def test_the_options_of_a_group_are_its_files(command):
    out = command("train", "-h")[1]
    assert "score: max, mean\n" in out
    assert "method" not in {line.partition(":")[0] for line in out.splitlines()}  # it follows from the model
    assert "Groups" not in command("serve", "-h")[1]


def test_with_other_arguments_it_shows_what_they_compose(command):
    status, out, _ = command("train", "experiment=demo", "--help")
    assert status == 0
    assert "Composing" in out or "== Config ==" in out
