"""`uniad train_decoder` as a script: python scripts/train_decoder.py ckpt_path=LAST.ckpt."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train_decoder", sys.argv[1:]))
