"""`uniad serve` as a script: python scripts/serve.py ckpt_path=LAST.ckpt."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
