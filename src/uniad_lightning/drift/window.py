"""The last images of one product, counted without going over them for each new one."""

from bisect import bisect_right, insort
from collections import deque


class Window:
    """Scores, and which images are unfamiliar, of the last `size` images."""

    def __init__(self, size: int):
        self._size = size
        self._scores: deque[float] = deque()
        self._ascending: list[float] = []
        self._unfamiliar: deque[bool] = deque()
        self.unfamiliar = 0  # images

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, score: float, *, unfamiliar: bool) -> None:
        """Take in an image, and leave out the oldest where there are more than `size`."""
        self._scores.append(score)
        insort(self._ascending, score)
        self._unfamiliar.append(unfamiliar)
        self.unfamiliar += unfamiliar
        if len(self._scores) > self._size:
            del self._ascending[bisect_right(self._ascending, self._scores.popleft()) - 1]
            self.unfamiliar -= self._unfamiliar.popleft()

    def above(self, score: float) -> int:
        """How many scores are above `score`."""
        return len(self._ascending) - bisect_right(self._ascending, score)

    def quantile(self, share: float) -> float:
        """The score that about `share` of the scores are at or below, one of them; IndexError without any."""
        return self._ascending[min(int(share * len(self._ascending)), len(self._ascending) - 1)]
