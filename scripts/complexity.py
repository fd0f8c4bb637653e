"""`uniad complexity` as a script: python scripts/complexity.py model=cnn."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("complexity", sys.argv[1:]))
