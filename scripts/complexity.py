"""`uniad complexity` as a script: python scripts/complexity.py model=cnn."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
