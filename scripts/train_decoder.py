"""`uniad train_decoder` as a script: python scripts/train_decoder.py ckpt_path=LAST.ckpt."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
