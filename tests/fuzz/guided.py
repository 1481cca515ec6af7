"""The same inputs led by coverage: atheris keeps what reached a new place in the program's code, and alters
that further. It is libFuzzer for Python (pip install atheris).
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from random import Random
from types import FunctionType

import atheris
from mutations import mutated
from run import TELL, Corpus, Tally

INSTRUMENTED = ("fcnconv", "tifffile", "zarr", "PIL")
"""Packages of Python code whose places count."""


def instrument() -> None:
    """Makes the code of these packages that is loaded tell where it is, function by function."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in INSTRUMENTED and module is not None:
            own = [value for value in vars(module).values() if getattr(value, "__module__", None) == name]
            inside = [value for one in own if isinstance(one, type) for value in vars(one).values()]
            for function in (*own, *inside):
                function = getattr(function, "__func__", function)
                if isinstance(function, FunctionType):
                    atheris.instrument_func(function)


def follow(
    corpus: Corpus, numbers: range, seed: int, place: mmap.mmap, tell: Callable[[Tally], object]
) -> None:
    """Reads inputs until there were as many as numbers, and does not come back: libFuzzer ends the process.

    An input begins with a byte that says which of the sound files it alters.
    """
    instrument()
    found = Tally(corpus.target.name)
    start = corpus.folder.parent / "guided"
    start.mkdir()
    for which, (_, content) in enumerate(corpus.sound):
        (start / str(which)).write_bytes(bytes([which]) + content)

    def read(data: bytes) -> None:
        place[:8] = (numbers.start + found.inputs).to_bytes(8, "little")
        which = data[0] % len(corpus.sound) if data else 0
        found.count(corpus.read(which, data[1:]), numbers.start + found.inputs)
        if found.inputs % TELL == 0 or found.inputs == len(numbers):
            tell(found)

    def alter(data: bytes, most: int, number: int) -> bytes:
        if number % 2 or not data:
            return bytes(atheris.Mutate(data, most))
        return (data[:1] + mutated(bytes(data[1:]), Random(number)))[:most]

    options = [f"-runs={len(numbers)}", f"-seed={seed + numbers.start + 1}", "-max_len=300000", "-timeout=0"]
    options += ["-rss_limit_mb=0", "-close_fd_mask=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(start)], read, custom_mutator=alter)
    atheris.Fuzz()
