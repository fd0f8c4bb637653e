"""`uniad COMMAND [key=value ...]`: each command is a Hydra application on `conf/`.

Exit status: 0 done; 1 finished, but a job or a picture failed (named) or a copy of a data set is not whole; 2 a user's
mistake, in one line; 130 interrupted.
Heavy imports happen inside a command, so that `uniad --help` answers at once.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from uniad_lightning import __version__, completion
from uniad_lightning.command_line import conf_dir, data_options, parse, start
from uniad_lightning.commands import CACHE, COMMANDS, DONE, FAILED, INTERRUPTED, MISTAKE, OTHERS, usage
from uniad_lightning.errors import InputError, complain, did_you_mean, one_line

__all__ = ["COMMANDS", "conf_dir", "main", "run_command"]


def main() -> None:
    """Entry point of the console script `uniad`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(DONE)
    if "--version" in arguments:
        print(f"uniad-lightning {__version__}")
        sys.exit(DONE)
    if arguments[0] in ("-sc", "--shell-completion"):
        sys.exit(_complete(arguments[1:]))
    if arguments[0] in OTHERS:
        sys.exit(_run_other(arguments[0], arguments[1:]))
    if arguments[0] == CACHE and (len(arguments) == 1 or arguments[1].startswith("keep=")):
        sys.exit(_show_kept_features(arguments[1:]))
    if arguments[0].replace("-", "_") in COMMANDS:
        arguments[0] = arguments[0].replace("-", "_")
    if arguments[0] not in COMMANDS:
        near = did_you_mean(arguments[0], (*COMMANDS, *OTHERS))
        if arguments[0].startswith("-"):
            near = f" Options come after it: uniad COMMAND {arguments[0]} ..."
        complain(f"uniad {arguments[0]}: no such command.{near} See uniad --help")
        sys.exit(MISTAKE)
    sys.exit(run_command(arguments[0], arguments[1:]))


def _run_other(name: str, words: list[str]) -> int:
    module, function = OTHERS[name].module.split(".")
    try:
        return DONE if getattr(import_module(f"uniad_lightning.{module}"), function)(words) else FAILED
    except InputError as error:
        complain(str(error))
        return MISTAKE


def _show_kept_features(words: list[str]) -> int:
    from uniad_lightning.kept_features import show_kept_features

    try:
        show_kept_features(words)
    except InputError as error:
        complain(str(error))
        return MISTAKE
    return DONE


def _complete(words: Sequence[str]) -> int:
    try:
        completion.answer(words, COMMANDS, others={"data": data_options, "table": _tables})
    except InputError as error:
        complain(str(error))
        return MISTAKE
    return DONE


def _tables() -> list[str]:
    from uniad_lightning.paper_tables import table_names

    return table_names()


def run_command(name: str, words: Sequence[str]) -> int:
    """Run the Hydra application `name`, once or over a sweep; returns the exit status.

    `words` are overrides and Hydra's options in any order.
    """
    own_argv = sys.argv
    try:
        line = parse(name, words)
    except InputError as error:
        complain(str(error))
        return MISTAKE
    from uniad_lightning.jobs import Jobs, report

    jobs = Jobs(name, line)
    try:
        start(line, jobs.run)
    except KeyboardInterrupt:
        jobs.finish()
        by_word = name in ("predict", "train_decoder")
        how = "resume=true goes on" if by_word else "a run with a checkpoint is resumed by ckpt_path=..."
        complain(f"interrupted; {how}")
        return INTERRUPTED
    except Exception as error:
        jobs.finish()  # of a sweep whose launcher failed
        # A plain ValueError is Hydra's, about options that contradict each other: a job's own does not come this far.
        status, _ = report(InputError(one_line(error)) if type(error) is ValueError else error, name, line)
        return status
    finally:
        sys.argv = own_argv
    return jobs.finish()


if __name__ == "__main__":
    main()
