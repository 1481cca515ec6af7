"""Measures whether a tile with its halo gives the features of the whole image.

Tiles are read with the receptive field from the graph (`receptive`). This module tests it on two pairs of
features: a window at the left of a tile that ends with its halo, against a wider image; and a window at the
bottom of a tile that starts with its halo, against a higher image. An operation that wraps around, counts
positions, or depends on more than its field gives other values. Comparing the two runs node by node finds it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from fcnconv.convert.extent import Larger, run_larger
from fcnconv.convert.graph import layer_of, node_text, output_shape
from fcnconv.convert.probes import precision_of, probe
from fcnconv.convert.proof import TOLERANCE, Values


def nonlocal_cause(
    traced: fx.GraphModule, features: Sequence[fx.Node], whole: Larger, window: int, more: int, cut: int
) -> str:
    """The operation that makes a window's features depend on more than its halo; empty if there is no such
    operation.

    Args:
        traced: the classifier, in float32.
        features: its feature maps.
        whole: the result of `extent.run_larger` for images `more` pixels larger than the window.
        window: side of the native input, in pixels.
        more: as above.
        cut: pixels beyond the halo.
    """
    tile = run_larger(traced, window, more, cut)
    for end in (0, 1):
        for feature in features:
            one, other = whole.ends[end].get(feature), tile.ends[end].get(feature)
            if one is None or other is None or _differ(one, other):
                return _first_difference(traced, window, more, cut, end)
    return ""


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape != other.shape or not float((one - other).abs().max()) <= TOLERANCE * float(
        one.abs().max()
    )


def _first_difference(traced: fx.GraphModule, window: int, more: int, cut: int, end: int) -> str:
    """The name of the first node whose values in the window differ between a tile and the whole image."""
    modules, axis = dict(traced.named_modules()), 2 if end else 3
    whole = probe(traced, 1, window, window + more)
    if end:
        whole = whole.transpose(2, 3)
    length = window + more - cut
    tile = whole.narrow(axis, cut if end else 0, length).contiguous()
    one, other = (_values(traced, x) for x in (whole.contiguous(), tile))
    for node in traced.graph.nodes:
        a, b, native = one.get(node), other.get(node), output_shape(node)
        if (
            not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor))
            or not a.ndim == b.ndim == len(native) == 4
        ):
            continue
        kept = min(native[axis], a.shape[axis], b.shape[axis])
        a, b = (x.narrow(axis, x.shape[axis] - kept if end else 0, kept) for x in (a, b))
        if _differ(a, b):
            return node_text(node, layer_of(node, modules))
    return "an operation that could not be found"


def _values(traced: fx.GraphModule, x: torch.Tensor) -> dict[fx.Node, object]:
    run = Values(traced)
    try:
        with precision_of(traced):
            return run.of(x)
    except Exception:  # a head that flattens accepts only the native size; everything before it has been run
        return run.env
