"""`uniad forget` as a script: python scripts/forget.py ckpt_path=last.ckpt category=NAME."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
