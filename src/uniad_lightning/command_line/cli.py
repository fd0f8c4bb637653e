"""`uniad COMMAND [key=value ...]`: each command is a Hydra application on `conf/`.

Exit status: 0 done; 1 finished, but a job or a picture failed (named) or a copy of a data set is not whole; 2 a user's
mistake, in one line; 130 interrupted; 141 nobody reads what it prints.
Heavy imports happen inside a command, so that `uniad --help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from uniad_lightning import __version__
from uniad_lightning.command_line import completion
from uniad_lightning.command_line.commands import CACHE, COMMANDS, OTHERS, usage
from uniad_lightning.command_line.words import conf_dir, data_options, parse, start
from uniad_lightning.errors import InputError, complain, did_you_mean, one_line, say
from uniad_lightning.exit_status import CLOSED, DONE, FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.training.interrupts import end_if_interrupted, remembered

__all__ = ["COMMANDS", "conf_dir", "main", "run_command"]


def main() -> None:
    """Entry point of the console script `uniad`."""
    try:
        with remembered():
            status = _status_of(sys.argv[1:])
            sys.stdout.flush()
    except InputError as error:
        complain(str(error))
        status = MISTAKE
    except KeyboardInterrupt:
        complain("interrupted")
        status = INTERRUPTED
    except BrokenPipeError:  # such as of `uniad table | head`; what is not yet written would end in it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED
    sys.exit(status)


def _status_of(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(usage())
        return DONE
    if "--version" in arguments:
        say(f"uniad-lightning {__version__}")
        return DONE
    name, *words = arguments
    if name in ("-sc", "--shell-completion"):
        completion.answer(words, COMMANDS, others={"data": data_options, "table": _tables})
        return DONE
    if name in OTHERS:
        module, function = OTHERS[name].module.rsplit(".", 1)
        return DONE if getattr(import_module(f"uniad_lightning.{module}"), function)(words) else FAILED
    if name == CACHE and (not words or words[0].startswith("keep=")):
        from uniad_lightning.command_line.cache_command import show_kept_features

        show_kept_features(words)
        return DONE
    if name.replace("-", "_") in COMMANDS:
        return run_command(name.replace("-", "_"), words)
    near = did_you_mean(name, (*COMMANDS, *OTHERS))
    if name.startswith("-"):
        near = f" Options come after it: uniad COMMAND {name} ..."
    raise InputError(f"uniad {name}: no such command.{near} See uniad --help")


def _tables() -> list[str]:
    from uniad_lightning.command_line.table_command import table_names

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
    from uniad_lightning.command_line.app import Jobs, report
    from uniad_lightning.sweeps.search import Undefined

    jobs = Jobs(name, line)
    try:
        start(line, jobs.run)
    except KeyboardInterrupt:
        jobs.finish()
        by_word = name in ("predict", "train_decoder")
        how = "resume=true goes on" if by_word else "a run with a checkpoint is resumed by ckpt_path=..."
        complain(f"interrupted; {how}")
        return INTERRUPTED
    except Undefined as error:
        jobs.finish()
        complain(str(error))
        return FAILED
    except Exception as error:
        end_if_interrupted()
        jobs.finish()  # of a sweep whose launcher failed
        # A plain ValueError is Hydra's, about options that contradict each other: a job's own does not come this far.
        status, _ = report(InputError(one_line(error)) if type(error) is ValueError else error, name, line)
        return status
    finally:
        sys.argv = own_argv
    return jobs.finish()


if __name__ == "__main__":
    main()
