"""Files that come into a folder in every way, and the rows that are expected of them."""

import os
import random
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from long_runs.journal import Journal, Picture, Score, broken_of

LARGEST_BURST = 50
KEPT = 300  # files in the folder, above which finished ones are removed as new ones come
# How often each comes, out of the sum.
MOVES = {
    "moved_in": 30, "written": 20, "slowly": 8, "linked": 5, "replaced": 8, "replaced_same_time": 5, "overwritten": 5,
    "renamed": 5, "broken": 5, "no_image": 5, "attributes": 3, "folder_moved_in": 2, "folder_made": 2,
}  # fmt: skip


class Feeder:
    """Feeds `folder`; `announce` is told the name of each complete file, to hand it on where nobody watches.

    A file is replaced, renamed or removed only after its row has come, so that what is expected is certain.
    """

    def __init__(
        self,
        folder: Path,
        pictures: list[Picture],
        journal: Journal,
        announce: Callable[[str], None],
        seed: int,
        *,
        without: tuple[str, ...] = (),
        kept: int = KEPT,
    ):
        self.folder, self.pictures, self.journal, self.announce = folder, pictures, journal, announce
        self.outside = folder.with_name(f"{folder.name}_outside")
        self.expected: dict[str, list[Score]] = defaultdict(list)
        self.moves: Counter[str] = Counter()
        self.random = random.Random(seed)
        self._present: dict[str, Picture] = {}  # of sound files alone
        self._removed: list[str] = []  # names, which come again
        self._number = 0
        self._slow: list[threading.Thread] = []
        self._kept = kept
        self._often = {name: often for name, often in MOVES.items() if name not in without}
        for place in (self.folder, self.outside):
            place.mkdir(exist_ok=True)

    def burst(self) -> None:
        """1 to 50 files, more often few."""
        for _ in range(round(LARGEST_BURST ** self.random.random())):
            self.journal.read()
            (name,) = self.random.choices([*self._often], [*self._often.values()])
            self.moves[name] += getattr(self, f"_{name}")() is not False
            self._remove_old()

    def wait(self) -> None:
        """Until the files that are written slowly are complete."""
        for thread in self._slow:
            thread.join()
        self._slow.clear()

    def done(self, name: str) -> bool:
        """Whether the rows of a name have come."""
        return len(self.journal.scores[name]) >= len(self.expected[name])

    def all_done(self) -> bool:
        """Whether all rows have come."""
        self.journal.read()
        return all(map(self.done, self.expected))

    @property
    def status(self) -> int:
        """The exit status of a command that has seen all files: 1 where one cannot be read."""
        return int(any(None in scores for scores in self.expected.values()))

    def _expect(self, name: str, picture: Picture) -> None:
        self.expected[name].append(picture.score)
        if picture.score is not None:
            self._present[name] = picture

    def _new(self, suffix: str, within: str = "") -> str:
        again = [name for name in self._removed if name.endswith(suffix)]
        if again and not within and self.random.random() < 0.2:
            self._removed.remove(again[0])
            return again[0]
        self._number += 1
        return f"{within}part {self._number:06d}{suffix}"

    def _put(self, name: str, content: bytes, *, changed: int | None = None) -> None:
        """A complete file in place of what is there, if anything."""
        place = self.outside / name.replace("/", "_")
        place.write_bytes(content)
        if changed is not None:
            os.utime(place, ns=(changed, changed))
        place.rename(self.folder / name)

    def _moved_in(self) -> None:
        picture = self.random.choice(self.pictures)
        self._arrive(picture, self._put)

    def _written(self) -> None:
        self._arrive(self.random.choice(self.pictures), lambda name, content: (self.folder / name).write_bytes(content))

    def _broken(self) -> None:
        self._arrive(self.random.choice(broken_of(self.random.choice(self.pictures))), self._put)

    def _linked(self) -> None:
        def link(name: str, content: bytes) -> None:
            place = self.outside / f"linked {name}"
            place.write_bytes(content)
            os.link(place, self.folder / name)
            place.unlink()

        self._arrive(self.random.choice(self.pictures), link)

    def _arrive(self, picture: Picture, put: Callable[[str, bytes], object]) -> None:
        name = self._new(picture.suffix)
        self._expect(name, picture)
        put(name, picture.content)
        self.announce(name)

    def _slowly(self) -> None:
        picture = self.random.choice(self.pictures)
        name = self._new(picture.suffix)
        pauses = [self.random.uniform(0.1, 2) for _ in range(self.random.randint(2, 6))]
        self._expect(name, picture)
        self._slow = [thread for thread in self._slow if thread.is_alive()]
        self._slow.append(threading.Thread(target=partial(self._write_slowly, name, picture.content, pauses)))
        self._slow[-1].start()

    def _write_slowly(self, name: str, content: bytes, pauses: list[float]) -> None:
        piece = len(content) // len(pauses) + 1
        with (self.folder / name).open("wb", buffering=0) as file:
            for number, pause in enumerate(pauses):
                time.sleep(pause)
                file.write(content[number * piece : (number + 1) * piece])
        self.announce(name)

    def _finished(self, suffix: str = "") -> str | None:
        """A file whose row has come."""
        names = [name for name in self._present if name.endswith(suffix) and self.done(name)]
        return self.random.choice(names) if names else None

    def _replace(self, suffix: str, put: Callable[[str, bytes], object]) -> bool:
        name = self._finished(suffix)
        if name is None:
            return False
        fresh = [p for p in self.pictures if name.endswith(p.suffix) and p.score not in self.expected[name]]
        if not fresh:
            return False
        picture = self.random.choice(fresh)
        self._expect(name, picture)
        put(name, picture.content)
        self.announce(name)
        return True

    def _replaced(self) -> bool:
        return self._replace("", self._put)

    def _replaced_same_time(self) -> bool:
        def put(name: str, content: bytes) -> None:
            self._put(name, content, changed=(self.folder / name).stat().st_mtime_ns)

        return self._replace(".bmp", put)  # all of one size, too

    def _overwritten(self) -> bool:
        return self._replace("", lambda name, content: (self.folder / name).write_bytes(content))

    def _renamed(self) -> bool:
        name = self._finished()
        if name is None:
            return False
        picture = self._present.pop(name)
        other = self._new(picture.suffix)
        self._expect(other, picture)
        (self.folder / name).rename(self.folder / other)
        self.announce(other)
        return True

    def _no_image(self) -> None:
        self._number += 1
        name = self.random.choice(["note {}.txt", "order {}.json", ".part {}.png", "{}.png.part"])
        (self.folder / name.format(self._number)).write_bytes(b"{}")

    def _attributes(self) -> bool:
        name = self._finished()
        if name is None:
            return False
        (self.folder / name).chmod(self.random.choice([0o600, 0o640, 0o644]))
        return True

    def _folder_moved_in(self) -> None:
        self._number += 1
        self._fill(self.outside / f"lot {self._number}", self.folder / f"lot {self._number}")

    def _folder_made(self) -> None:
        self._number += 1
        self._fill(self.folder / f"lot {self._number}", self.folder / f"lot {self._number}")

    def _fill(self, made: Path, final: Path) -> None:
        made.mkdir()
        names = []
        for picture in self.random.choices(self.pictures, k=self.random.randint(1, 5)):
            names.append(self._new(picture.suffix, within=f"{final.name}/"))
            self._expect(names[-1], picture)
            (made / Path(names[-1]).name).write_bytes(picture.content)
        if made != final:
            made.rename(final)
        for name in names:
            self.announce(name)

    def _remove_old(self) -> None:
        while len(self._present) > self._kept:
            name = next(iter(self._present))
            if not self.done(name):
                return
            lot = Path(name).parent
            of_lot = [other for other in self._present if Path(other).parent == lot] if lot.name else [name]
            if not all(map(self.done, of_lot)):
                return
            if lot.name:
                shutil.rmtree(self.folder / lot)
            else:
                (self.folder / name).unlink()
                self._removed.append(name)
            for other in of_lot:
                del self._present[other]
            self.moves["removed"] += len(of_lot)
