"""`uniad complexity` as a script: python scripts/complexity.py model=cnn."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
