"""Many images at a time give what each gives alone, in order, and stop when they should."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator

import pytest
from patience import PATIENCE

from fcnconv.batch import workers
from fcnconv.batch.inputs import Input, from_paths
from fcnconv.batch.workers import classify_each
from fcnconv.errors import FcnconvError, ImageError, UsageError
from fcnconv.images.pillow import silence
from fcnconv.options import ClassifyOptions

ONE = ClassifyOptions(top_k=1)


class Stub:
    """Stands for a classifier: a path's classification is the path itself, in capitals."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.barrier: threading.Barrier | None = None

    def share(self, count: int) -> Stub:
        return self

    def open(self, image: str, scales: object, *, name: str, frame: int | None) -> str:
        assert image == name and frame is None
        return image

    def classify(self, path: str, *, scales: object, k: int, at_least: float | None) -> str:
        self.started.append(path)
        if self.barrier:
            self.barrier.wait(timeout=PATIENCE)
        if path.startswith("bad"):
            raise MemoryError if "memory" in path else ImageError(f"{path}: bad")
        if path.startswith("odd"):
            raise RuntimeError("std::bad_alloc" if "memory" in path else "who would have thought")
        if path.startswith("wrong"):
            raise UsageError(f"{path}: wrong")
        return path.upper()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_results_come_in_order_with_the_errors_among_them(count: int) -> None:
    images = [f"bad{i}" if i % 3 == 1 else f"image{i}" for i in range(count)]
    results = list(classify_each(Stub(), from_paths(images), ONE))
    assert [path for path, _ in results] == images
    for path, result in results:
        assert isinstance(result, FcnconvError) if path.startswith("bad") else result == path.upper()


def test_an_image_too_large_for_memory_does_not_stop_the_rest() -> None:
    _, (name, error), _ = classify_each(Stub(), from_paths(["a", "bad memory", "c"]), ONE)
    assert name == "bad memory" and isinstance(error, ImageError)
    assert str(error) == "bad memory: out of memory; choose a smaller --scales"


def test_what_nobody_foresaw_does_not_stop_the_rest() -> None:
    first, (_, odd), (_, memory), last = classify_each(
        Stub(), from_paths(["a", "odd", "odd memory", "c"]), ONE
    )
    assert (first, last) == (("a", "A"), ("c", "C"))
    assert str(odd) == "odd: unexpected RuntimeError: who would have thought; --debug shows where"
    assert str(memory) == "odd memory: out of memory: std::bad_alloc" and isinstance(memory, FcnconvError)


def test_freed_memory_is_released_after_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[None] = []
    monkeypatch.setattr(workers, "release_memory", lambda: released.append(None))
    assert len(list(classify_each(Stub(), from_paths(["a", "bad", "c"]), ONE))) == len(released) == 3


def test_several_images_are_worked_on_at_once() -> None:
    stub = Stub()
    stub.barrier = threading.Barrier(workers.IN_FLIGHT)  # breaks if fewer than that come together
    images = [f"image{i}" for i in range(2 * workers.IN_FLIGHT)]
    assert len(list(classify_each(stub, from_paths(images), ONE))) == len(images)


def test_a_wrong_argument_stops_the_rest() -> None:
    stub = Stub()
    with pytest.raises(UsageError, match="wrong2"):
        list(classify_each(stub, from_paths(["a", "b", "wrong2", *map(str, range(100))]), ONE))
    assert len(stub.started) < 20


def test_a_reader_that_goes_stops_the_rest() -> None:
    stub = Stub()
    results = classify_each(stub, from_paths(str(i) for i in range(100)), ONE)
    next(results)
    results.close()
    assert len(stub.started) < 20


def test_a_result_does_not_wait_for_the_next_input() -> None:
    more = threading.Event()

    def slow() -> Iterator[Input]:
        yield Input("a", "a")
        assert more.wait(timeout=PATIENCE)
        yield Input("b", "b")

    results = classify_each(Stub(), slow(), ONE)
    assert next(results) == ("a", "A")  # before there is a second input
    more.set()
    assert list(results) == [("b", "B")]


def test_an_error_of_the_inputs_own_source_comes_after_what_it_gave() -> None:
    def broken() -> Iterator[Input]:
        yield Input("a", "a")
        raise ImageError("the list is cut short")

    results = classify_each(Stub(), broken(), ONE)
    assert next(results) == ("a", "A")
    with pytest.raises(ImageError, match="cut short"):
        next(results)


def test_warnings_are_silent_until_the_last_thread_is_out_and_then_as_before() -> None:
    before = list(warnings.filters)
    with silence:
        with silence:
            warnings.warn("inner", stacklevel=1)
        warnings.warn("outer", stacklevel=1)
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("heard", UserWarning, stacklevel=1)
