"""The subcommands of `uniad` and the text of `uniad --help`. Imports nothing heavy, so that it answers at once."""

from typing import NamedTuple


class Command(NamedTuple):
    """One subcommand: what it does, an example, and the module with the function of its name."""

    meaning: str
    example: str
    module: str


COMMANDS = {
    "train": Command(
        "train one model on all categories, then evaluate it",
        "uniad train experiment=mvtec data.root=mvtec_ad",
        "calibration.after_training",
    ),
    "evaluate": Command(
        "evaluate a checkpoint",
        "uniad evaluate ckpt_path=runs/mvtec/checkpoints/last.ckpt data.root=mvtec_ad",
        "training.evaluate",
    ),
    "calibrate": Command(
        "set the boundary between good and defective in a checkpoint, on good images it was not trained on",
        "uniad calibrate ckpt_path=runs/mvtec/checkpoints/last.ckpt rate=0.01",
        "calibration.calibrate",
    ),
    "export": Command(
        "write a checkpoint as one ONNX or torch.export file that runs without this package, and compare the two",
        "uniad export ckpt_path=runs/mvtec/checkpoints/last.ckpt precision=fp16",
        "exporting.export",
    ),
    "predict": Command(
        "predict on images, a video or a watched folder: rows, overlays, masks",
        "uniad predict ckpt_path=runs/mvtec/checkpoints/last.ckpt input=photos",
        "report.after_prediction",
    ),
    "feedback": Command(
        "keep an operator's verdicts on predictions; show, then take, what they change: boundary, bank, training",
        "uniad feedback predictions=OUT/predictions.csv verdicts=verdicts.csv",
        "feedback.feedback",
    ),
    "serve": Command(
        "serve a checkpoint or an exported file over HTTP: JSON, metrics, a page to drop images on",
        "uniad serve ckpt_path=runs/mvtec/checkpoints/last.ckpt port=8000",
        "serving.serve",
    ),
    "complexity": Command(
        "count parameters and operations of what a training would train (Table A7)",
        "uniad complexity model=cnn",
        "paper.complexity",
    ),
    "train_decoder": Command(
        "train a decoder that renders a detector's features as images, for display alone (appendix B.3)",
        "uniad train_decoder ckpt_path=runs/mvtec/checkpoints/last.ckpt output_dir=runs/decoder",
        "rendering.train_decoder",
    ),
    "panels": Command(
        "draw what a detector reconstructs, rendered as images (Figs. 6, A2 and A3), and its learned queries",
        "uniad panels ckpt_path=runs/mvtec/checkpoints/last.ckpt decoder=runs/decoder/decoder.ckpt",
        "rendering.panels",
    ),
    "forget": Command(
        "take a category out of a memory bank; the others stay as they are",
        "uniad forget ckpt_path=runs/mvtec/checkpoints/last.ckpt category=screw",
        "training.forget",
    ),
    "import_official": Command(
        "convert a checkpoint of the reference implementation (github.com/zhiyuanyou/UniAD)",
        "uniad import_official file=ckpt.pth.tar output=official.ckpt",
        "reference.import_checkpoint",
    ),
    "cache": Command(
        "compute the features a training would use and keep them; without arguments list them; keep=20GB bounds them",
        "uniad cache experiment=mvtec data.root=mvtec_ad",
        "training.precompute_features",
    ),
}


CACHE = "cache"  # without arguments, and with keep=, no Hydra application
# Commands without Hydra: each names a function of the arguments that returns whether all is well, or an exit status.
OTHERS = {
    "data": Command(
        "list the public data sets; print the layout of one; count a copy; look at every file (status 1: findings)",
        "uniad data folder data.root=photos check=true",
        "command_line.data_command.show_data_sets",
    ),
    "table": Command(
        "put run folders into a table of the paper, beside its numbers; without arguments list the tables",
        "uniad table 5c runs/demo/neighbor_size",
        "command_line.table_command.show_table",
    ),
    "report": Command(
        "write one HTML page over runs or predictions: tables, curves, a slider of the boundary, the images",
        "uniad report runs/mvtec",
        "command_line.report_command.show_report",
    ),
    "drift": Command(
        "say whether predicted images are like those of the calibration (status 0: ok, 3: drift, 1: not known)",
        "uniad drift inspected",
        "command_line.drift_command.show_drift",
    ),
    "doctor": Command(
        "check this machine: versions, GPUs, folders, weights, extras, an inference (status 1: something is broken)",
        "uniad doctor hub=true",
        "command_line.doctor_command.show_doctor",
    ),
}


# The options of `uniad report`, whose module takes seconds to import.
REPORT_OPTIONS = (
    "out=", "images=thumbnails", "images=embedded", "images=beside", "maps=true", "maps=false", "device=", "limit=",
)  # fmt: skip

# The options of `uniad doctor`.
DOCTOR_OPTIONS = ("hub=true", "cache_dir=", "output_dir=")

# The tables of `uniad table`, those of `paper.layouts`, which takes seconds to import.
TABLES = ("1", "2", "3", "4", "5a", "5b", "5c", "5d", "5e", "5f", "A2", "A3", "A4", "A5", "A6", "fig2", "fig4")


def usage() -> str:
    """The text of `uniad --help`."""
    lines = ["usage: uniad COMMAND [key=value ...] [--option ...]", ""]
    for name, command in {**COMMANDS, **OTHERS}.items():
        lines += [f"  {name:15} {command.meaning}", f"  {'':15} {command.example}", ""]
    lines += [
        "Keys are those of conf/: `uniad COMMAND --help` says what each is for, and the options of each",
        "group; `uniad COMMAND --cfg job` prints all values. Several runs: -m model.neighbor_size=1,7",
        "or sweep=neighbor_size. Your own YAML files: --config-dir DIR, such as --config-dir my",
        "experiment=mine for my/experiment/mine.yaml. One logger or several: logger=mlflow,",
        "'logger=[csv,wandb]'. Completion by the tab key, in bash or zsh:",
        'eval "$(uniad -sc install=bash)"; in fish: uniad -sc install=fish | source.',
        "`uniad --version` prints the version. UNIAD_DEBUG=1 shows the traceback behind an error line.",
    ]
    return "\n".join(lines)
