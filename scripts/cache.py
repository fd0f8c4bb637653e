"""`uniad cache` as a script: python scripts/cache.py experiment=mvtec data.root=mvtec_ad."""

import sys

from uniad_lightning.command_line.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("cache", sys.argv[1:]))
