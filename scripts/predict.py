"""`uniad predict` as a script: python scripts/predict.py ckpt_path=LAST.ckpt input=photos."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
