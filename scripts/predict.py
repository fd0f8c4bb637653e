"""`uniad predict` as a script: python scripts/predict.py ckpt_path=LAST.ckpt input=photos."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("predict", sys.argv[1:]))
