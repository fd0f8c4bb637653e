"""`uniad panels` as a script: python scripts/panels.py ckpt_path=LAST.ckpt decoder=DECODER.ckpt."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
