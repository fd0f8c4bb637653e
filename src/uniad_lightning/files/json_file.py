"""A JSON object in a file of its own, read with one error for all that can be wrong with it."""

import json
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError, one_line, system_reason


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises InputError that names the file and ends with the `remedy` for one that cannot be read or holds anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {system_reason(error)}") from None
    except (ValueError, RecursionError) as error:  # not JSON, no UTF-8, nested too deep
        raise InputError(f"{path}: not JSON ({one_line(error)}); {remedy}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object; {remedy}")
    return content
