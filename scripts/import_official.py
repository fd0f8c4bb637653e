"""`uniad import_official` as a script: python scripts/import_official.py file=ckpt.pth.tar output=official.ckpt."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("import_official", sys.argv[1:]))
