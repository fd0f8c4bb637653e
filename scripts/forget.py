"""`uniad forget` as a script: python scripts/forget.py ckpt_path=last.ckpt category=NAME."""

from uniad_lightning.command_line.cli import run_script

if __name__ == "__main__":
    run_script(__file__)
