"""Files of strangers, thousands of them mutated from sound ones: each is read, or refused in one line.

    python -m support.fuzzing SEED COUNT [KIND ...]        (make fuzz) prints how many of each kind came to which end

Each kind runs in a process of its own, so that a crash of a library is counted as well, with the case to repeat.
"""

import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from support.children import CONTEXT
from support.fuzz_kinds import Kind, kinds_in
from uniad_lightning.errors import InputError

SLOW = 20  # seconds that no small file may take
STUCK = 120  # seconds after which a process is ended
MOST_MEMORY = 16 << 30  # bytes of addresses of a process
READ, REFUSED, SLOW_END = "read", "refused", "slow"
TOKENS = [
    b"null", b"NaN", b"-1", b"1e999", b"9" * 400, b'"../../x"', b'"/etc/passwd"', b"\\u0000", b"[" * 3000, b"{}", b"[]",
    b"true", b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"=1+1", b"\x1b[2J", b"*a", b"&a ",
    b"${oc.env:HOME}", b"!!python/name:os.system ", b"\xe2\x80\xae", b"\x80\x02cos\nsystem\n", b"Infinity", b"../",
]  # fmt: skip


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one to five changes: of bits, bytes, stretches, tokens, and its end."""
    data = bytearray(content)
    for _ in range(int(rng.choice((1, 1, 2, 5)))):
        reach = min(len(data), int(rng.choice((64, 512, 1 << 30))))  # often near the beginning
        place = int(rng.integers(reach)) if reach else 0
        length = int(rng.integers(1, 40))
        change = int(rng.integers(8))
        if change == 0 and data:
            data[place % len(data)] ^= 1 << int(rng.integers(8))
        elif change == 1 and data:
            data[place % len(data)] = int(rng.choice((0, 1, 127, 128, 255)))
        elif change == 2:
            del data[place : place + length]
        elif change == 3:
            data[place:place] = data[place : place + length]
        elif change == 4:
            data[place:place] = rng.bytes(length)
        elif change == 5:
            del data[place : None if rng.random() < 0.3 else place + 1]
        else:
            token = TOKENS[int(rng.integers(len(TOKENS)))]
            data[place : place + (length if change == 6 else 0)] = token
    return bytes(data)


def end_of(kind: Kind, number: int, seed: int, folder: Path) -> str:
    """How one case ends: `read`, `refused`, or what went wrong."""
    rng = np.random.default_rng((seed, number))
    name = sorted(kind.sound)[int(rng.integers(len(kind.sound)))]
    path, started = folder / name, time.monotonic()
    path.write_bytes(mutated(kind.sound[name], rng))
    try:
        kind.read(path)
        end = READ
    except InputError as error:
        end = REFUSED if "\n" not in str(error) else "an error of several lines"
    except BaseException as error:  # what this looks for
        end = f"{type(error).__name__}: {str(error)[:100]!r} at {_place(error)}"
    return SLOW_END if time.monotonic() - started > SLOW else end


def _place(error: BaseException) -> str:
    """The last line of this package that the error passed."""
    found, trace = "?", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "uniad_lightning" in name:
            found = f"{Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _run(kind: str, numbers: range, seed: int, ends: Connection) -> None:
    """The cases of one kind, in a process of its own, whose memory is bounded."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        kinds = kinds_in(Path(folder))
        (Path(folder) / "case").mkdir()
        for number in numbers:
            ends.send(end_of(kinds[kind], number, seed, Path(folder) / "case"))


def ends(kind: str, count: int, seed: int) -> Iterator[str]:
    """The end of each case of a kind; a process that dies or hangs is begun again behind the case."""
    number = 0
    while number < count:
        here, there = CONTEXT.Pipe(duplex=False)
        worker = CONTEXT.Process(target=_run, args=(kind, range(number, count), seed, there))
        worker.start()
        there.close()
        try:
            while number < count:
                if not here.poll(STUCK):
                    worker.kill()
                yield here.recv()
                number += 1
        except EOFError:
            worker.join()
            yield f"the process died with {worker.exitcode} (-9 where it was stuck)"
            number += 1
        worker.join()


KINDS = (
    "image", "checkpoint", "ONNX", "CIFAR batch", "list (JSON lines)", "CSV (VisA)", "JSON (Real-IAD)", "metrics.json",
    "predictions.jsonl", "config.yaml",
)  # fmt: skip


def main(seed: int, count: int, kinds: Sequence[str] = KINDS) -> int:
    """Print how `count` cases, evenly over the kinds, end; returns the number of those that were neither."""
    faults = 0
    print(f"| file | mutated | {READ} | {REFUSED} | anything else |\n|---|---|---|---|---|")
    for kind in kinds:
        found = list(ends(kind, count // len(kinds), seed))
        counts = Counter(found)
        others = [(number, end) for number, end in enumerate(found) if end not in (READ, REFUSED)]
        faults += len(others)
        print(f"| {kind} | {len(found)} | {counts[READ]} | {counts[REFUSED]} | {len(others)} |", flush=True)
        for number, end in others[:20]:
            print(f"  seed {seed}, {kind} {number}: {end}", file=sys.stderr, flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or KINDS)))
