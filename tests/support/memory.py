"""Memory measured in a process of its own, where nothing that other tests have left counts or grows."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def alone(function: Callable, *args):
    """What `function(*args)` returns in a fresh process.

    Python's tables of its own (that of interned strings, into which every part of a `Path` goes) double by what the
    process held before, which `tracemalloc` counts as the function's.

    Args:
        function: One at the top of a module, so that the other process can import it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
