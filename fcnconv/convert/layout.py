"""The layout of a head's values when the head slides over a map instead of reading a single window.

In the classifier, a value of the head has one vector, or one small array, per image. In the converted network
it has one per cell, and all of them are stored alike: float (N, channels, rows, cols), with the elements of
the array as channels. A `HeadValue` remembers the axes that the classifier sees, as *atoms*: channel atoms,
and the rows and columns of the window as long as nothing has collapsed them. So a view, a permutation or a
flattening costs nothing in the converted network. It changes the names of the axes, and the weights of the
next linear layer are put in this order once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import fx


@dataclass(frozen=True, eq=False)
class Atom:
    """A part of an axis that is never divided.

    Attributes:
        size: its length.
        along: ``rows`` or ``cols`` of the window, which the converted map still slides over; empty for
            channels.
        bins: float64 (size, length of the window), the adaptive average pooling that remains to be done along
            it.
    """

    size: int
    along: str = ""
    bins: torch.Tensor | None = None


@dataclass(frozen=True)
class HeadValue:
    """A value of the head in the converted network.

    Attributes:
        node: float (N, channels, rows, cols).
        dims: the atoms of each axis of the classifier's value except the first axis, the outermost atom
            first.
        order: the channel atoms in the order of the channels of `node`, the outermost first.
    """

    node: fx.Node
    dims: tuple[tuple[Atom, ...], ...]
    order: tuple[Atom, ...]

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """All atoms, in the order of the classifier's axes."""
        return tuple(atom for dim in self.dims for atom in dim)

    @property
    def sliding(self) -> tuple[Atom, ...]:
        """The atoms of the window's rows and columns that nothing has collapsed yet."""
        return tuple(atom for atom in self.atoms if atom.along)

    @property
    def channels(self) -> int:
        """Number of channels of `node`."""
        return prod(atom.size for atom in self.order)

    @property
    def natural(self) -> bool:
        """Whether the channels are in the order of the classifier's axes."""
        return tuple(atom for atom in self.atoms if not atom.along) == self.order

    def signature(self) -> tuple[tuple[int, str, int], ...]:
        """A key that is equal for values that can be combined element by element."""
        position = {id(atom): place for place, atom in enumerate(self.order)}
        atoms = [atom for atom in self.atoms if atom.size > 1 or atom.along]
        ranks = {
            place: rank for rank, place in enumerate(sorted(position[id(a)] for a in atoms if not a.along))
        }
        return tuple((a.size, a.along, -1 if a.along else ranks[position[id(a)]]) for a in atoms)

    def reshaped(self, shape: tuple[int, ...]) -> HeadValue | None:
        """The same elements in another shape, given without the first axis; None if this would divide a
        row.
        """
        left, dims, order = list(self.atoms), [], list(self.order)
        for length in shape:
            dim: list[Atom] = []
            while prod(atom.size for atom in dim) < length:
                if not left:
                    return None
                atom, missing = left.pop(0), length // prod(a.size for a in dim)
                if atom.size > missing:
                    if atom.along or atom.size % missing:
                        return None
                    outer, inner = Atom(missing), Atom(atom.size // missing)
                    place = next(i for i, each in enumerate(order) if each is atom)
                    order[place : place + 1] = [outer, inner]
                    left.insert(0, inner)
                    atom = outer
                dim.append(atom)
            if prod(atom.size for atom in dim) != length:
                return None
            dims.append(tuple(dim))
        if any(atom.size > 1 or atom.along for atom in left):
            return None
        kept = {id(atom) for dim in dims for atom in dim}
        return HeadValue(
            self.node, tuple(dims), tuple(atom for atom in order if id(atom) in kept or atom.size > 1)
        )

    def reduced(self, node: fx.Node, gone: set[int], keep: set[int] | None) -> HeadValue:
        """The value after some axes were collapsed.

        Args:
            node: the node of the new value.
            gone: numbers of the collapsed axes.
            keep: the collapsed axes that stay, with length 1.
        """
        dims = [
            () if axis in gone else dim
            for axis, dim in enumerate(self.dims)
            if axis not in gone or (keep and axis in keep)
        ]
        left = {id(atom) for dim in dims for atom in dim}
        return HeadValue(node, tuple(dims), tuple(atom for atom in self.order if id(atom) in left))


@dataclass(frozen=True)
class Pair:
    """The result of a reduction with an index, such as `torch.max(x, 3)`: the values, and something else."""

    values: tuple[HeadValue | None, ...]


def weight_of_cells(weight: torch.Tensor, last: tuple[Atom, ...], order: tuple[Atom, ...]) -> torch.Tensor:
    """The kernel that does to each window what a linear layer does to the vector of its elements.

    Args:
        weight: (out, elements), with the elements in the order of the atoms `last`.
        last: the atoms of the last axis.
        order: the channel atoms of the map.

    Returns:
        (out, channels, height, width).
    """
    shaped = weight.reshape(len(weight), *(atom.size for atom in last))
    axes = {id(atom): axis for axis, atom in enumerate(last, 1)}
    sliding = {atom.along: atom for atom in last if atom.along}
    ordered = [axes[id(atom)] for atom in order]
    tail = [axes[id(sliding[along])] for along in ("rows", "cols") if along in sliding]
    shaped = shaped.permute(0, *ordered, *tail)
    sides = [sliding[along].size if along in sliding else 1 for along in ("rows", "cols")]
    kernel = shaped.reshape(len(weight), -1, *sides)
    for axis, along in ((2, "rows"), (3, "cols")):
        bins = sliding[along].bins if along in sliding else None
        if bins is not None:  # linear ∘ pooling is one linear map of the features
            kernel = torch.tensordot(kernel.double(), bins.to(kernel.device), ([axis], [0])).movedim(-1, axis)
    return kernel


def constant_of_cells(value: torch.Tensor, shape: tuple[int, ...], cells: HeadValue) -> torch.Tensor | None:
    """A constant in the form that the converted network adds or multiplies: (1, channels, 1, 1).

    Args:
        value: broadcast to `shape`.
        shape: the shape of the classifier's value without its first axis.
        cells: the layout of this value.

    Returns:
        The constant, or None if it varies within the window.
    """
    rank = len(shape)
    while value.ndim > rank:
        if value.shape[0] != 1:
            return None
        value = value[0]
    value = value.reshape((1,) * (rank - value.ndim) + tuple(value.shape))
    for axis, dim in enumerate(cells.dims):
        if any(atom.along for atom in dim) and value.shape[axis] != 1:
            return None
    pixelless = [prod(atom.size for atom in dim if not atom.along) for dim in cells.dims]
    value = value.expand(*pixelless).reshape(
        [atom.size for dim in cells.dims for atom in dim if not atom.along]
    )
    own = [atom for atom in cells.atoms if not atom.along]
    places = [next(i for i, each in enumerate(own) if each is atom) for atom in cells.order]
    return value.permute(places).reshape(1, -1, 1, 1)


def bins_matrix(length: int, bins: int) -> torch.Tensor:
    """float64 (bins, length): adaptive average pooling along one axis, as a matrix."""
    return F.adaptive_avg_pool1d(torch.eye(length, dtype=torch.float64)[None], bins)[0].T


def feature_cells(
    node: fx.Node, shape: tuple[int, ...], rows: int, cols: int
) -> tuple[HeadValue, tuple[int, ...]]:
    """The layout of a feature map, and the permutation of its axes to (N, channels…, rows, cols).

    Args:
        node: the map.
        shape: its shape, including the first axis.
        rows, cols: the axes of rows and columns in `shape`.
    """
    atoms = [Atom(size, {rows: "rows", cols: "cols"}.get(axis, "")) for axis, size in enumerate(shape)]
    # a window of one cell has nothing to collapse
    dims = tuple(() if atom.along and atom.size == 1 else (atom,) for atom in atoms[1:])
    channels = [axis for axis in range(1, len(shape)) if axis not in (rows, cols)]
    cells = HeadValue(node, dims, tuple(atoms[axis] for axis in channels))
    return cells, (0, *channels, rows, cols)


def with_node(cells: HeadValue, node: fx.Node) -> HeadValue:
    """The same layout for the output of another node."""
    return replace(cells, node=node)
