"""`uniad panels` as a script: python scripts/panels.py ckpt_path=LAST.ckpt decoder=DECODER.ckpt."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("panels", sys.argv[1:]))
