"""`uniad feedback` as a script: python scripts/feedback.py predictions=OUT verdicts=verdicts.csv."""

from uniad_lightning.command_line.cli import run_script

run_script(__file__, __name__)
