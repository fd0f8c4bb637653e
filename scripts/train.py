"""`uniad train` as a script: python scripts/train.py experiment=demo."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:]))
