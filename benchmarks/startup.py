"""How long a user waits: the command's help, a composed configuration, and the import behind every run.

The opponent is `import torch, lightning` in a bare interpreter: what no program on these libraries can undercut once it
needs them.
"""

import subprocess
import sys
from collections.abc import Callable

from timing import Row, compare, in_turn

BARE = (sys.executable, "-c", "import torch, lightning")
UNIAD = (sys.executable, "-m", "uniad_lightning.command_line.cli")
OURS = {
    "uniad --help": (*UNIAD, "--help"),
    "uniad train --cfg job": (*UNIAD, "train", "--cfg", "job"),
    "import uniad_lightning.training.train": (sys.executable, "-c", "import uniad_lightning.training.train"),
}


def call(command: tuple[str, ...]) -> Callable[[], object]:
    return lambda: subprocess.run(command, check=True, capture_output=True)


def rows(quick: bool) -> list[Row]:
    functions = {name: call(command) for name, command in {**OURS, "bare": BARE}.items()}
    if not quick:
        in_turn(functions, repeats=1)  # fills the file cache
    seconds = in_turn(functions, repeats=1 if quick else 5)
    return [compare(f"{name}: import torch, lightning", seconds[name], seconds["bare"]) for name in OURS]
