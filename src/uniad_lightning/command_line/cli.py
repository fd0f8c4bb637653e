"""`uniad COMMAND [key=value ...]`: each command is a Hydra application on `conf/`.

Exit status: 0 done; 1 finished, but a job or an image failed (named), a data set is incomplete or faulty or, for `uniad
doctor`, the machine; 2 a user's mistake, in one line; 3 drift, of `uniad drift`; 130 interrupted; 141 the reader of its
output has closed it.
Heavy modules are imported inside a command, so that `uniad --help` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from uniad_lightning import __version__
from uniad_lightning.command_line import completion
from uniad_lightning.command_line.commands import CACHE, COMMANDS, DOCTOR_OPTIONS, OTHERS, REPORT_OPTIONS, TABLES, usage
from uniad_lightning.command_line.error_messages import report
from uniad_lightning.command_line.key_help import key_help
from uniad_lightning.command_line.parsing import CommandLine, conf_dir, data_options, parse, start
from uniad_lightning.errors import InputError, did_you_mean, explain_system, one_line, print_stderr, print_stdout
from uniad_lightning.exit_status import CLOSED, DONE, FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.results.history import running, shell_line
from uniad_lightning.training.interrupts import end_if_interrupted, keep_interrupts

__all__ = ["COMMANDS", "conf_dir", "main", "run_command", "run_script"]


def main() -> None:
    """Entry point of the console script `uniad`."""
    try:
        with keep_interrupts():
            status = _status_of(sys.argv[1:])
            sys.stdout.flush()
    except InputError as error:
        print_stderr(str(error))
        status = MISTAKE
    except KeyboardInterrupt:
        print_stderr("interrupted")
        status = INTERRUPTED
    except BrokenPipeError:  # as of `uniad table | head`; flushing the rest at exit would raise it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED
    except OSError as error:  # of a command that is no Hydra application, as for a name that is too long
        message = explain_system(error)
        if message is None:
            raise
        print_stderr(message)
        status = MISTAKE
    sys.exit(status)


def _status_of(arguments: list[str]) -> int:
    """Run the command in `arguments`; returns its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print_stdout(usage())
        return DONE
    if "--version" in arguments:
        print_stdout(f"uniad-lightning {__version__}")
        return DONE
    name, *rest = arguments
    if name in ("-sc", "--shell-completion"):
        others = {"data": data_options, "table": lambda: TABLES}
        others |= {"report": lambda: REPORT_OPTIONS, "doctor": lambda: DOCTOR_OPTIONS, "drift": lambda: ()}
        completion.answer(rest, COMMANDS, others=others)
        return DONE
    if name in OTHERS:
        module, function = OTHERS[name].module.rsplit(".", 1)
        found = getattr(import_module(f"uniad_lightning.{module}"), function)(rest)
        return (DONE if found else FAILED) if isinstance(found, bool) else found
    if name == CACHE and (not rest or rest[0].startswith("keep=")):
        from uniad_lightning.command_line.cache_command import show_kept_features

        show_kept_features(rest)
        return DONE
    if (known := name.replace("-", "_")) in COMMANDS:
        if rest and set(rest) <= {"-h", "--help"}:  # with other arguments, Hydra shows what they compose
            print_stdout(key_help(known))
            return DONE
        return run_command(known, rest)
    near = did_you_mean(name, (*COMMANDS, *OTHERS))
    if name.startswith("-"):
        near = f" Options come after it: uniad COMMAND {name} ..."
    raise InputError(f"uniad {name}: no such command.{near} See uniad --help")


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run the Hydra application `name`, once or over a sweep; returns the exit status.

    `arguments` are overrides and Hydra's options in any order.
    """
    own_argv = sys.argv
    try:
        with running(shell_line(["uniad", name, *arguments])):
            return _run(name, parse(name, arguments))
    except InputError as error:
        print_stderr(str(error))
        return MISTAKE
    finally:
        sys.argv = own_argv


def run_script(file: str, name: str) -> None:
    """Run the command that the script `file` is named after, and exit with its status; its `name` is `__name__`.

    A script that is imported, as by a process that it starts, does nothing.
    """
    if name == "__main__":
        sys.exit(run_command(Path(file).stem, sys.argv[1:]))


def _run(name: str, line: CommandLine) -> int:
    from uniad_lightning.command_line.jobs import Jobs
    from uniad_lightning.command_line.resuming import remedy, separate
    from uniad_lightning.sweeps.search import Undefined

    if name == "train":
        line = separate(line)
    jobs = Jobs(name, line)
    try:
        start(line, jobs.run)
    except KeyboardInterrupt:
        jobs.finish()
        print_stderr(f"interrupted; {remedy(name, jobs.folder)}")
        return INTERRUPTED
    except Undefined as error:
        jobs.finish()
        print_stderr(str(error))
        return FAILED
    except Exception as error:  # of Hydra: composing the configuration, or a launcher; explained by `report`
        end_if_interrupted()
        jobs.finish()  # of a sweep whose launcher failed
        # A plain ValueError is Hydra's, about options that contradict each other: a job's own does not come this far.
        status, _ = report(InputError(one_line(error)) if type(error) is ValueError else error, name, line)
        return status
    return jobs.finish()


if __name__ == "__main__":
    main()
