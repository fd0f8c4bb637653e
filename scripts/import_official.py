"""`uniad import_official` as a script: python scripts/import_official.py file=ckpt.pth.tar output=official.ckpt."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
