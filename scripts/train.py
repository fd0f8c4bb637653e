"""`uniad train` as a script: python scripts/train.py experiment=demo."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
