"""`uniad cache` as a script: python scripts/cache.py experiment=mvtec data.root=mvtec_ad."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
