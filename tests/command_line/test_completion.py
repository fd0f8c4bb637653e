"""The tab key in a real bash; zsh and fish are asked for their scripts and candidates only."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from support.settings import UNIAD
from uniad_lightning.command_line.cli import COMMANDS
from uniad_lightning.command_line.commands import OTHERS, TABLES
from uniad_lightning.command_line.completion import answer
from uniad_lightning.paper.layouts import LAYOUTS

HEAVY = {"torch", "lightning", "timm", "matplotlib", "scipy", "torchvision", "wandb", "pandas", "albumentations"}
MODULES_OF = """
import sys
from uniad_lightning.command_line.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
BASH = shutil.which("bash")
# What readline does: sets the line, its words and the cursor, and calls the function registered for the program.
PRESS_TAB = """
eval "$(uniad -sc install=bash)"
function=$(complete -p uniad | sed 's/.*-F \\([^ ]*\\).*/\\1/')
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE}
    COMP_WORDS=($COMP_LINE)
    [[ "$COMP_LINE" == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    $function uniad
    echo "${COMPREPLY[*]}"
done
"""
EXPECTED = {
    "uniad ": " ".join(sorted((*COMMANDS, *OTHERS))),
    "uniad report runs/x images=": "images=beside images=embedded images=thumbnails",
    "uniad data mvtec_": "mvtec_3d mvtec_ad2 mvtec_loco",
    "uniad tr": "train train_decoder",
    "uniad --v": "--version",
    "uniad train exp": "experiment=",
    "uniad train experiment=d": "experiment=demo",
    "uniad train seed=3 experiment=d": "experiment=demo",
    "uniad train -m seed=0,1 backbone=tin": "backbone=tiny",
    "uniad train model.neigh": "model.neighbor_size=",
    "uniad train model.hidden_dim=": "model.hidden_dim=256",
    "uniad train experiment=demo model.hidden_dim=": "model.hidden_dim=128",
    "uniad evaluate ckpt_path=": "ckpt_path=my/ ckpt_path=runs/",
    "uniad evaluate ckpt_path=ru": "ckpt_path=runs/",
    "uniad evaluate ckpt_path=runs/": "ckpt_path=runs/last.ckpt",
    "uniad evaluate ckpt_path=./runs/l": "ckpt_path=./runs/last.ckpt",
    "uniad train --config-d": "--config-dir",
    "uniad train --config-dir m": "my/",
    "uniad train --config-dir=m": "--config-dir=my/",
    "uniad train --cfg ": "all hydra job",
    "uniad train --config-dir my experiment=mi": "experiment=mine",
    "uniad train experiment=mine --config-dir=my name=": "name=mine",
    "uniad train --no-such experiment=d": "",  # a line with a mistake in it
    "uniad train experiment='d": "",
    "uniad nonsense tr": "",
    f"{UNIAD} train experiment=d": "experiment=demo",
}


@pytest.fixture
def folder(tmp_path):
    """A working directory with a checkpoint, a hidden file and the user's own experiment."""
    for name, text in {
        "runs/last.ckpt": "", ".hidden": "", "my/experiment/mine.yaml": "# @package _global_\nname: mine\n"
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def ask(*words, folder, line=""):
    """What `uniad -sc` prints with a line typed so far."""
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    return subprocess.run(
        [UNIAD, "-sc", *words], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="no bash")
def test_tab_in_bash(folder):
    environment = {**os.environ, "PATH": f"{UNIAD.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [BASH, "--norc", "-c", PRESS_TAB], input="".join(f"{line}\n" for line in EXPECTED),
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.stderr == ""
    assert dict(zip(EXPECTED, done.stdout.splitlines(), strict=True)) == EXPECTED


def test_zsh_and_fish_are_answered(folder):
    for shell, separator in (("zsh", " "), ("fish", "\n")):
        assert "uniad" in ask(f"install={shell}", folder=folder).stdout
        done = ask(f"query={shell}", folder=folder, line="uniad train trainer=ddp")
        assert done.stdout.strip().split(separator) == ["trainer=ddp", "trainer=ddp_v100"]
        assert ask(f"uninstall={shell}", folder=folder).returncode == 0


def test_the_cursor_counts_not_the_end_of_the_line(folder):
    environment = {**os.environ, "COMP_LINE": "uniad tr experiment=demo", "COMP_POINT": "8"}
    done = subprocess.run([UNIAD, "-sc", "query=bash"], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["train", "train_decoder"]


@pytest.mark.parametrize("words", [["install=tcsh"], [], ["query=tcsh", "install=bash"], ["nonsense"]])
def test_an_unknown_shell_or_question_is_one_line(folder, words):
    done = ask(*words, folder=folder)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "bash" in done.stderr


def test_completion_imports_nothing_heavy(folder):
    code = (
        "import sys; from uniad_lightning.command_line import cli; sys.argv = ['uniad', '-sc', 'query=bash']\n"
        "try: cli.main()\n"
        "except SystemExit: print([m for m in ('torch', 'lightning', 'matplotlib', 'timm') if m in sys.modules])"
    )
    environment = {**os.environ, "COMP_LINE": "uniad train experiment=demo model.neigh"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    print(f"one completion: {time.perf_counter() - start:.2f} s")
    assert done.stdout.split("\n")[:2] == ["model.neighbor_size=", "[]"]


@pytest.mark.parametrize(
    ("line", "found"), [("uniad data ", "mvtec visa"), ("uniad data v", "visa"), ("uniad d", "data"), ("uniad ", None)]
)
def test_a_command_that_is_no_hydra_application(monkeypatch, capsys, line, found):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    answer(["query=bash"], ["train"], {"data": lambda: ["visa", "mvtec"]})
    assert capsys.readouterr().out.strip() == (found or "data train")


@pytest.mark.parametrize(
    "words",
    ["--help", "cache", "cache keep=0", "data", "data visa", "data folder"]
    + [
        f"-sc query=bash: uniad {typed}"
        for typed in ("", "table ", "data ", "train model", "train model=", "predict in")
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(words, tmp_path):
    command, _, typed = words.partition(": ")
    environment = {**os.environ, "COMP_LINE": typed, "COMP_POINT": str(len(typed)), "UNIAD_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", MODULES_OF, *command.split()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    loaded = set(done.stderr.split())
    assert "uniad_lightning" in loaded
    assert not loaded & HEAVY


def test_the_tables_offered_are_those_there_are():
    assert tuple(LAYOUTS) == TABLES
