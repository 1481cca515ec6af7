"""Answering a device that is out of memory: the same logits from smaller parts of the region."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from fcnconv.backends import Run
from fcnconv.grid import Geometry
from fcnconv.scores import FloatArray

log = logging.getLogger("fcnconv")


def run_in_parts(run: Run, geometry: Geometry | None, is_out_of_memory: Callable[[Exception], bool]) -> Run:
    """A backend that halves what `run` has no memory for: first the batch, then the region.

    geometry: of the network's windows; None for a classifier, whose images cannot be cut. A network that is
        not local is not cut either, since its parts would not give the scores of the whole.
    is_out_of_memory: whether an error of `run` is one of memory; it may free what it can.

    Raises MemoryError when nothing smaller is left.
    """

    def attempt(x: FloatArray) -> FloatArray:
        try:
            return run(x)
        except Exception as error:  # whatever the device raises; all but its lack of memory goes on
            if not is_out_of_memory(error):
                raise
        count, _, height, width = x.shape
        if count > 1:
            return np.concatenate([attempt(part) for part in np.array_split(x, 2)])
        if geometry is None or not geometry.local:
            raise MemoryError
        log.debug("out of memory at %d × %d px: halving", width, height)
        return _halved(attempt, x, geometry)

    return attempt


def _halved(run: Run, x: FloatArray, geometry: Geometry) -> FloatArray:
    """The logits of a region from its two halves along the longer side, each read with its halo."""
    axis = 2 if x.shape[2] >= x.shape[3] else 3
    window, step, halo, phases = geometry.window, geometry.step, geometry.halo, geometry.phases
    cells = (x.shape[axis] - window) // step + 1  # of the network's own stride
    end = (cells - 1) * step + window
    parts = []
    for start, stop in ((0, cells // 2), (cells // 2, cells)):
        first = max(start * step - halo, 0)
        last = min((stop - 1) * step + window + halo, end)
        if start == stop or last - first >= x.shape[axis]:
            raise MemoryError  # with its halo a half is as large as the whole
        logits = run(np.ascontiguousarray(np.take(x, range(first, last), axis)))
        skipped = start - first // step
        # of a finer stride the last cells have no others after them
        own = range(
            skipped * phases, (skipped + stop - start) * phases if stop < cells else logits.shape[axis]
        )
        parts.append(np.take(logits, own, axis))
    return np.concatenate(parts, axis)
