"""Layers that do to each window of a map what a pooling does to the whole map of one window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class SlidingStatistic(nn.Module):
    """A statistic of each window, over its rows and columns, at stride 1: (N, C, H, W) -> (N, C, rows, cols).

    This covers the few statistics for which torch has no sliding layer. It visits the rows and columns of the
    windows one after another, so it needs the memory of only a few maps.

    Attributes:
        kind: a key of `STATISTICS`.
        kernel_size: the window's (height, width) in cells.
        correction: correction of variances, as in `torch.var`.
        order: p, for norms.
    """

    stride, padding, dilation = 1, 0, 1

    def __init__(self, kind: str, kernel_size: tuple[int, int], correction: float = 1, order: float = 2):
        super().__init__()
        self.kind, self.kernel_size = kind, kernel_size
        self.correction, self.order = correction, order

    def extra_repr(self) -> str:
        return f"{self.kind}, kernel_size={self.kernel_size}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return STATISTICS[self.kind](self, x)

    def total(self, x: torch.Tensor, each: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The sum of each(value) over every window, adding one position of all windows at a time."""
        height, width = self.kernel_size
        rows, cols = x.shape[2] - (height - 1), x.shape[3] - (width - 1)
        places = [(i, j) for i in range(height) for j in range(width)]
        sums = each(x[:, :, :rows, :cols])
        for i, j in places[1:]:
            sums = sums + each(x[:, :, i : i + rows, j : j + cols])
        return sums

    def variance(self, x: torch.Tensor) -> torch.Tensor:
        """The variance of each window."""
        count = self.kernel_size[0] * self.kernel_size[1]
        mean = nn.functional.avg_pool2d(x, self.kernel_size, 1)
        return self.total(x, lambda value: (value - mean) * (value - mean)) / (count - self.correction)

    def log_sum_exp(self, x: torch.Tensor) -> torch.Tensor:
        """log(sum(exp(x))) of each window."""
        highest = nn.functional.max_pool2d(x, self.kernel_size, 1)
        return self.total(x, lambda value: torch.exp(value - highest)).log() + highest

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """The p-norm of each window."""
        if self.order == 2:
            return self.total(x, lambda value: value * value).sqrt()
        if self.order == 1:
            return self.total(x, torch.abs)
        return self.total(x, lambda value: value.abs().pow(self.order)).pow(1 / self.order)


STATISTICS: dict[str, Callable[[SlidingStatistic, torch.Tensor], torch.Tensor]] = {
    "min": lambda self, x: -nn.functional.max_pool2d(-x, self.kernel_size, 1),
    "var": SlidingStatistic.variance,
    "std": lambda self, x: self.variance(x).sqrt(),
    "logsumexp": SlidingStatistic.log_sum_exp,
    "norm": SlidingStatistic.norm,
}
"""The kinds of `SlidingStatistic`."""


class SlidingBins(nn.Module):
    """Adaptive pooling of each window to bins: (N, C, H, W) -> (N, C · bins, rows, cols), bins innermost.

    Bin b of n along an axis of length k covers the cells ⌊b · k / n⌋ to ⌈(b + 1) · k / n⌉ − 1, as in torch.

    Attributes:
        pool: ``avg`` or ``max``.
        kernel_size: the window's (height, width) in cells.
        bins: (down, across).
    """

    stride, padding, dilation = 1, 0, 1

    def __init__(self, pool: str, kernel_size: tuple[int, int], bins: tuple[int, int]):
        super().__init__()
        self.pool = nn.functional.max_pool2d if pool == "max" else nn.functional.avg_pool2d
        self.kernel_size, self.bins = kernel_size, bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.kernel_size
        rows, cols = x.shape[2] - (height - 1), x.shape[3] - (width - 1)
        pooled = []
        for top, bottom in _bins(height, self.bins[0]):
            for left, right in _bins(width, self.bins[1]):
                part = self.pool(x, (bottom - top, right - left), 1)
                pooled.append(part[:, :, top : top + rows, left : left + cols])
        # bins x (N, C, rows, cols) -> (N, C, bins, rows, cols) -> (N, C · bins, rows, cols)
        return torch.stack(pooled, 2).flatten(1, 2)


def _bins(length: int, count: int) -> list[tuple[int, int]]:
    return [(b * length // count, -(-(b + 1) * length // count)) for b in range(count)]


class ChannelNorm(nn.Module):
    """LayerNorm of each cell over its channels: (N, C, h, w) -> the same."""

    def __init__(self, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float):
        super().__init__()
        self.weight = None if weight is None else nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The exporter rejects a size computed from the image, so the weight gives the size if there is one.
        channels = x.shape[1] if self.weight is None else len(self.weight)
        normed = nn.functional.layer_norm(
            x.permute(0, 2, 3, 1), (channels,), self.weight, self.bias, self.eps
        )
        return normed.permute(0, 3, 1, 2)
