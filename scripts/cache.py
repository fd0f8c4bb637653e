"""`uniad cache` as a script: python scripts/cache.py experiment=mvtec data.root=mvtec_ad."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
