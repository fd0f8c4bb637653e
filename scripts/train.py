"""`uniad train` as a script: python scripts/train.py experiment=demo."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
