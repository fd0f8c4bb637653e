"""`uniad evaluate` as a script: python scripts/evaluate.py ckpt_path=LAST.ckpt."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
