"""Some altered files for each way in: none makes an error that is not the program's own, a hang, or much
memory. ``pytest -m slow`` reads 200 for each, ``python tests/fuzz/run.py`` as many as you like.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
from mutations import mutated
from run import Corpus, tally
from targets import TARGETS, Target
from watch import MOST_BYTES, memory_limit, watched

from fcnconv.errors import ImageError

FEW, MANY = 20, 200
"""Inputs for each way in."""

SEED = 1
"""Another than that of the nightly run, whose first inputs these would be."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an input take as long as it may on a busy machine."""
    monkeypatch.setattr("watch.SECONDS", 120)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("inputs", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(TARGETS))
def test_altered_files_are_answered_or_refused(name: str, inputs: int, tmp_path: Path) -> None:
    target = TARGETS[name]
    if not target.here:
        pytest.skip(f"needs {', '.join(target.needs)}")
    corpus = Corpus(target, tmp_path)
    corpus.check()  # sound ones are answered, or all below would be refused for some other reason
    with memory_limit():
        found = tally(corpus, range(inputs), SEED)
    assert found.inputs == inputs and not found.failures
    assert found.grown < MOST_BYTES


def test_an_input_is_the_same_again(tmp_path: Path) -> None:
    corpus = Corpus(TARGETS["spec"], tmp_path)
    first = [corpus.input(number, SEED) for number in range(50)]
    assert first == [corpus.input(number, SEED) for number in range(50)]
    assert len(set(first)) > 40 and first != [corpus.input(number, SEED + 1) for number in range(50)]


@pytest.mark.parametrize("content", [b"", b"\0", b"{}", b"[" * 9, b"PK\3\4", b"12345678{}", b'{"a": [1]}'])
def test_whatever_there_is_can_be_altered(content: bytes) -> None:
    random = Random(0)
    altered = {mutated(content, random) for _ in range(300)}
    assert len(altered) > 20 and all(isinstance(one, bytes) for one in altered)


def _wrong(path: Path) -> None:
    raise KeyError(path.name)


def _refusing(path: Path) -> None:
    raise ImageError(f"{path}: refused")


def _of_two_lines(path: Path) -> None:
    raise ImageError("first\nsecond")


def _hanging(path: Path) -> None:
    time.sleep(60)


def _greedy(path: Path) -> None:
    bytearray(8 * MOST_BYTES)


@pytest.mark.parametrize(
    ("read", "failure"),
    [
        (_wrong, "KeyError: test_fuzz.py:_wrong"),
        (_refusing, ""),
        (_of_two_lines, "not one line"),
        (_hanging, "a hang"),
        (_greedy, "MemoryError"),
    ],
)
def test_the_watch_sees_what_goes_wrong(
    read: object, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watch.SECONDS", 0.2)
    with memory_limit():
        outcome = watched(read, tmp_path)
    assert not outcome.answered and failure in outcome.failure and bool(failure) == bool(outcome.failure)


def test_a_way_in_is_named_once() -> None:
    assert all(isinstance(target, Target) and target.name == name for name, target in TARGETS.items())
    assert len({target.about for target in TARGETS.values()}) == len(TARGETS)
