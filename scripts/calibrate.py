"""`uniad calibrate` as a script: python scripts/calibrate.py ckpt_path=LAST.ckpt."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("calibrate", sys.argv[1:]))
