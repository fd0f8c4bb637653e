"""`uniad drift OUT`: what `drift.json` in a folder of results says, as lines and as an exit status."""

from uniad_lightning.drift.monitor import DRIFT, OK
from uniad_lightning.drift.status_file import STATUS, read_status
from uniad_lightning.errors import InputError, print_stdout, printable
from uniad_lightning.exit_status import DONE, DRIFTED, FAILED
from uniad_lightning.files.user_path import expand

_USAGE = "uniad drift OUT, with the output_dir of uniad predict"


def show_drift(arguments: list[str]) -> int:
    """Print the state of every product; the exit status is 0 for `ok`, 3 for `drift`, 1 where it is not known.

    Raises InputError for anything but one folder that holds the file.
    """
    given = [argument for argument in arguments if argument not in ("-h", "--help")]
    if arguments and not given:
        print_stdout(f"{_USAGE}; status 0: ok, 3: drift, 1: not known (yet), 2: no such file")
        return DONE
    if len(given) != 1 or not given[0]:  # a watchdog whose variable is empty must not be told that all is well
        found = f"uniad drift {' '.join(given)}".strip() if any(given) else "uniad drift without a folder"
        raise InputError(f"{found}: expected one folder: {_USAGE}")
    path = expand(given[0]) / STATUS
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected {_USAGE}")
    status = read_status(path)
    print_stdout(printable(f"{status['state']} (written {status.get('written')})"))
    for name, own in status["products"].items():
        print_stdout(printable(f"{name or 'product not known'}: {own['state']} since {own['since']}: {own['why']}"))
    return {OK: DONE, DRIFT: DRIFTED}.get(status["state"], FAILED)
