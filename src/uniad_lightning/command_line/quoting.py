"""Names and paths on a command line kept as strings: Hydra would read `4711E2`, `1_000`, `true` or `a,b` otherwise."""

import re

from uniad_lightning.errors import InputError

# The keys whose values are names or paths, and those below which all values are. `null` alone stays null.
KEYS = (
    "category", "name", "input", "good", "file", "output", "output_dir", "ckpt_path", "init_from", "decoder",
    "data.root", "data.categories", "data.normal_classes", "data.cache_dir", "data.framing.ignore", "data.source.train",
    "data.source.test", "sink",
)  # fmt: skip
# Those of KEYS whose value is one path, whatever characters it has.
PATHS = (
    "input", "file", "output", "output_dir", "ckpt_path", "init_from", "decoder", "data.root", "data.cache_dir",
)  # fmt: skip
BELOW = ("data.source.products", "data.source.parts")
NUMBERS = ("test_share",)  # of a part: a number all the same

_INT = r"(?:0|[1-9](?:_?[0-9])*)"
_POINT = rf"(?:{_INT}\.|{_INT}?\.[0-9](?:_?[0-9])*)"
_EXPONENT = rf"(?:(?:{_POINT}|{_INT})[eE][+-]?[0-9](?:_?[0-9])*)"
_NULL = re.compile("null", re.IGNORECASE)
_VALUE = re.compile(rf"[+-]?(?:{_INT}|{_POINT}|{_EXPONENT}|inf|nan)|true|false|null", re.IGNORECASE)
_PLAIN = re.compile(r"[\w/\-+.$%*@?|: \t]*", re.ASCII)  # what Hydra reads without quotes
_FUNCTION = re.compile(r"\s*[a-z_]+\(.*\)\s*", re.DOTALL)  # such as choice(a,b)
_OF_HYDRA = re.compile(  # those of _FUNCTION that are not a path such as `copy(2)`
    r"\s*(?:choice|range|interval|glob|sort|shuffle|tag|extend_list|int|float|str|bool|json_str)\(.*\)\s*", re.DOTALL
)
_WITHIN_QUOTES = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_PART = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[][{},]|:|[^][{},:'"]+""")


def as_text(override: str, *, swept: bool = False) -> str:
    """An override with the names and paths in its value quoted where Hydra would not read them as they are typed.

    Where jobs are `swept`, a comma in a path divides two of them, as in every other value.
    """
    given, equals, value = override.partition("=")
    key = given.lstrip("+")
    if not equals or not (key in KEYS or key.startswith(tuple(f"{parent}." for parent in BELOW)) or key in BELOW):
        return override
    if key.rpartition(".")[2] in NUMBERS or "${" in value:
        return override
    if (_OF_HYDRA if key in PATHS else _FUNCTION).fullmatch(value):
        return override
    if key in PATHS and not (swept and "," in value) and "\\" not in value:  # a backslash is Hydra's own way to escape
        return f"{given}={_path(value)}"
    return f"{given}={_quoted(value, key)}"


def in_quotes(value: str) -> str:
    """`value` as a text in Hydra's quotes, in which quotes and the backslashes before them are escaped."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), value) + "'"


def _path(value: str) -> str:
    as_typed = _PLAIN.fullmatch(value) and value == value.strip() and not _VALUE.fullmatch(value)
    if as_typed or _NULL.fullmatch(value) or _WITHIN_QUOTES.fullmatch(value):
        return value
    return in_quotes(value)


def _quoted(value: str, key: str) -> str:
    parts = _joined(_PART.findall(value))
    if "".join(parts) != value:  # something that Hydra will refuse
        return value
    depth: list[str] = []
    done: list[str] = []
    for place, part in enumerate(parts):
        if part in ("[", "{"):
            depth.append(part)
        elif part in ("]", "}") and depth:
            depth.pop()
        elif part not in (",", ":"):
            in_mapping = bool(depth) and depth[-1] == "{"
            if in_mapping and parts[place + 1 : place + 2] == [":"]:
                part = part if _is_count(part) and key == "data.source.parts" else _as_key(part)
            elif in_mapping and place > 1 and parts[place - 2].strip() in NUMBERS:
                pass
            elif not (_is_count(part) and key == "data.normal_classes"):
                part = _as_value(part, in_list=bool(depth) and depth[-1] == "[")
        done.append(part)
    return "".join(done)


def _joined(parts: list[str]) -> list[str]:
    """`parts` with those joined that a colon divides outside of a mapping, as in `12:30`."""
    joined: list[str] = []
    depth: list[str] = []
    after_colon = False
    for part in parts:
        if part in ("[", "{"):
            depth.append(part)
        elif part in ("]", "}") and depth:
            depth.pop()
        outside = not depth or depth[-1] == "["
        if outside and joined and (after_colon or part == ":") and part not in ("[", "]", "{", "}", ","):
            joined[-1] += part
        else:
            joined.append(part)
        after_colon = outside and part == ":"
    return joined


def _is_count(part: str) -> bool:
    """Whether a part is a whole number in its usual form, so that it is the same as a string."""
    return re.fullmatch(r"\s*(0|[1-9][0-9]*)\s*", part) is not None


def _as_value(part: str, *, in_list: bool) -> str:
    text = part.strip()
    read_otherwise = _VALUE.fullmatch(text) and (in_list or not _NULL.fullmatch(text))
    if not text or text[0] in "'\"" or "\\" in text or not (read_otherwise or not _PLAIN.fullmatch(text)):
        return part
    return part.replace(text, f"'{text}'")


def _as_key(part: str) -> str:
    """A key of a mapping, which Hydra does not allow to be quoted: an escaped space before it makes it a string.

    Raises InputError for a key that Hydra cannot read at all.
    """
    if not _PLAIN.fullmatch(part) and "\\" not in part:
        raise InputError(
            f"{part.strip()}: such a name cannot be a key on the command line; write it in a YAML file of your own "
            "(--config-dir)"
        )
    return f"\\ {part.strip()}" if _VALUE.fullmatch(part.strip()) else part
