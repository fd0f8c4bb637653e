"""What an .onnx file would read besides itself, and its metadata, found without the package `onnx` or any runtime.

The file is one message of Protocol Buffers: fields of a number, a kind and a value. Numbers: `onnx.proto3` of ONNX.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of values
_MOST_LEVELS = 32  # of graphs within attributes of nodes
_EXTERNAL_DATA, _LOCATION, _EXTERNAL = 13, 14, 1  # of a tensor
_METADATA, _KEY, _VALUE = 14, 1, 2  # of a model, and of an entry of its metadata
# By message: its fields that hold messages which may hold tensors.
_WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}


def names_other_files(content: memoryview) -> bool:
    """Whether a tensor of the model in `content` lies in another file.

    Raises ValueError for what is no such message.
    """
    pending = [("model", content, 0)]
    while pending:
        kind, message, level = pending.pop()
        if level > _MOST_LEVELS:
            raise ValueError(f"graphs nested more than {_MOST_LEVELS} levels deep")
        for number, value in _fields(message):
            if kind == "tensor":
                if number == _EXTERNAL_DATA or (number == _LOCATION and value == _EXTERNAL):
                    return True
            elif number in _WITHIN[kind] and isinstance(value, memoryview):
                pending.append((_WITHIN[kind][number], value, level + 1))
    return False


def metadata_of(content: memoryview) -> dict[str, str]:
    """The metadata of the model in `content`, texts by name.

    Raises ValueError for what is no such message, and for names and texts that are not UTF-8.
    """
    entries = [
        dict(_fields(entry))
        for number, entry in _fields(content)
        if number == _METADATA and isinstance(entry, memoryview)
    ]
    return {_text(entry.get(_KEY, b"")): _text(entry.get(_VALUE, b"")) for entry in entries}


def _text(value: int | bytes | memoryview) -> str:
    if isinstance(value, int):
        raise ValueError("a number where a text is expected")
    return bytes(value).decode()


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; of a fixed width the value is 0."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if length > len(message) - place:
            raise ValueError("a field longer than its message")
        yield number, message[place : place + length] if kind == _BYTES else 0
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("a number without its end")
        byte = message[place]
        value |= (byte & 127) << shift
        place += 1
        if byte < 128:
            return value, place
    raise ValueError("a number of more than 64 bits")
