"""`uniad predict` as a script: python scripts/predict.py ckpt_path=LAST.ckpt input=photos."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
