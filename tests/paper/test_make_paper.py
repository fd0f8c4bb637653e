"""`make paper`: its training composes, and its tables are those that exist."""

import shlex
import subprocess

from hydra import compose, initialize_config_dir

from support.paths import ROOT
from uniad_lightning.command_line.commands import TABLES
from uniad_lightning.settings import conf_dir


def test_what_it_runs_is_the_papers_training_of_five_seeds_and_tables_1_and_2():
    lines = subprocess.run(
        ["make", "--dry-run", "paper", "MVTEC=photos"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    calls = [shlex.split(line)[1:] for line in lines if "/uniad " in line]
    (train, *words), *tables = calls
    assert train == "train"
    single = [word for word in words if not word.startswith(("seed=", "sweep="))]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*single, "output_dir=x"])
    assert (cfg.name, cfg.data.root, cfg.trainer.max_epochs) == ("paper", "photos", 1000)
    assert "seed=0,1,2,3,4" in words
    assert "sweep=unified_or_separate" in words
    assert [(verb, table) for verb, table, *_ in tables] == [("table", "1"), ("table", "2")]
    assert {"1", "2"} <= {*TABLES}
    assert all(folder == "runs/paper/unified_or_separate" for _, _, folder, _ in tables)
