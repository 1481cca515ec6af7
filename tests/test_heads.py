"""Heads, operations and modules as people write them: each converts and is compared with a naive crop loop
over the unconverted network, or is refused with its reason. The tables are `docs/models.md`'s, too.

The body pads nothing, so that every cell of a larger image must equal the crop of its window, up to rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ordinary import images, ordinary
from torch import nn

import fcnconv
from fcnconv.convert import EXACT, convolutionize
from fcnconv.errors import ConversionError, ModelError

WINDOW, STRIDE, CHANNELS = 65, 8, 12

Head = Callable[["Net", torch.Tensor], torch.Tensor]


def unpadded() -> nn.Sequential:
    """(N, 3, 65, 65) -> (N, 12, 7, 7), stride 8."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, CHANNELS, 3, stride=2),
        nn.ReLU(),
    )


class Net(nn.Module):
    """A body, and a head that is a function of it and its features."""

    def __init__(self, head: Head, inputs: int = CHANNELS):
        super().__init__()
        self.body, self.head, self.fc = unpadded(), head, nn.Linear(inputs, 5)
        self.other, self.conv, self.gate = (
            nn.Linear(CHANNELS, 5),
            nn.Conv2d(CHANNELS, 5, 1),
            nn.Conv2d(CHANNELS, CHANNELS, 1),
        )
        self.average, self.highest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.norm, self.batch_norm, self.prelu = (
            nn.LayerNorm(CHANNELS),
            nn.BatchNorm1d(CHANNELS),
            nn.PReLU(CHANNELS),
        )
        self.p = nn.Parameter(torch.tensor(3.0))
        self.scale = nn.Parameter(torch.rand(CHANNELS) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self, self.body(x))


def double(head: Head) -> tuple[Head, int]:
    return head, 2 * CHANNELS


def flat(head: Head) -> tuple[Head, int]:
    return head, 49 * CHANNELS


def sizes(x: torch.Tensor) -> int:
    """As the tutorials counted features until 2021."""
    count = 1
    for size in x.size()[1:]:
        count *= size
    return count


HEADS: dict[str, Head | tuple[Head, int]] = {
    "average + maximum": lambda net, f: net.fc((net.average(f) + net.highest(f)).flatten(1)),
    "average + maximum, as functions": lambda net, f: net.conv(
        0.5 * (F.adaptive_avg_pool2d(f, 1) + F.adaptive_max_pool2d(f, 1))
    ).flatten(1),
    "two 1 × 1 heads": lambda net, f: (net.conv(net.average(f)) + net.conv(net.highest(f))).flatten(1),
    "two linear heads": lambda net, f: net.fc(net.average(f).flatten(1)) + net.other(f.amax((2, 3))),
    "concatenated poolings": double(
        lambda net, f: net.fc(torch.cat([net.highest(f), net.average(f)], 1).flatten(1))
    ),
    "stacked poolings": double(
        lambda net, f: net.fc(torch.stack([f.mean((2, 3)), f.amax((2, 3))], 2).flatten(1))
    ),
    "mean of stacked poolings": lambda net, f: net.fc(
        torch.stack([f.mean((2, 3)), f.amax((2, 3))], 1).mean(1)
    ),
    "gate from a second pooling": lambda net, f: net.conv(
        net.average(f) * torch.sigmoid(net.gate(net.highest(f)))
    ).flatten(1),
    "maximum of two poolings": lambda net, f: net.fc(torch.maximum(f.mean((2, 3)), 0.5 * f.amax((2, 3)))),
    "view(b, c, -1).mean(-1)": lambda net, f: net.fc(f.view(f.size(0), f.size(1), -1).mean(-1)),
    "flatten(2).mean(2)": lambda net, f: net.fc(f.flatten(2).mean(2)),
    "flatten(2).max(2)[0]": lambda net, f: net.fc(f.flatten(2).max(2)[0]),
    "flatten(2).max(-1).values": lambda net, f: net.fc(f.flatten(2).max(dim=-1)[0]),
    "max(3)[0].max(2)[0]": lambda net, f: net.fc(f.max(3)[0].max(2)[0]),
    "mean(3).mean(2)": lambda net, f: net.fc(f.mean(3).mean(2)),
    "mean of rows, highest of columns": lambda net, f: net.fc(f.mean(2).amax(2)),
    "amin": lambda net, f: net.fc((-f).amin((2, 3))),
    "sum": lambda net, f: net.fc(f.sum((2, 3))),
    "sum / (h · w)": lambda net, f: net.fc(f.sum((2, 3)) / (f.shape[2] * f.shape[3])),
    "logsumexp": lambda net, f: net.fc(torch.logsumexp(f, (2, 3))),
    "norm": lambda net, f: net.fc(f.norm(dim=(2, 3))),
    "std": lambda net, f: net.fc(f.std((2, 3))),
    "var, biased": lambda net, f: net.fc(f.var((2, 3), unbiased=False)),
    "mean and std": double(lambda net, f: net.fc(torch.cat([f.mean((2, 3)), f.std((2, 3))], 1))),
    "GeM": lambda net, f: net.fc(
        F.avg_pool2d(f.clamp(min=1e-6).pow(net.p), (f.size(-2), f.size(-1))).pow(1.0 / net.p).flatten(1)
    ),
    "avg_pool2d(x, x.size()[2:])": lambda net, f: net.fc(F.avg_pool2d(f, f.size()[2:]).view(f.size(0), -1)),
    "avg_pool2d(x, x.size(2))": lambda net, f: net.fc(F.avg_pool2d(f, f.size(2)).squeeze(3).squeeze(2)),
    "max_pool2d(7)": lambda net, f: net.fc(F.max_pool2d(f, 7).flatten(1)),
    "[:, :, 0, 0]": lambda net, f: net.fc(net.average(f)[:, :, 0, 0]),
    "[..., 0, 0]": lambda net, f: net.fc(net.average(f)[..., 0, 0]),
    "the middle cell": lambda net, f: net.fc(f[:, :, 3, 3]),
    "x @ W.t() + b": lambda net, f: net.average(f).flatten(1) @ net.fc.weight.t() + net.fc.bias,
    "F.linear": lambda net, f: F.linear(f.mean((2, 3)), net.fc.weight, net.fc.bias),
    "addmm": lambda net, f: torch.addmm(net.fc.bias, f.mean((2, 3)), net.fc.weight.t()),
    "normalised features": lambda net, f: net.fc(F.normalize(f.mean((2, 3)))),
    "cosine": lambda net, f: (
        16 * F.linear(F.normalize(net.average(f).flatten(1)), F.normalize(net.fc.weight))
    ),
    "scaled channels": lambda net, f: net.fc(f.mean((2, 3)) * net.scale),
    "batch and layer norm": lambda net, f: net.fc(net.norm(net.batch_norm(f.mean((2, 3))))),
    "PReLU": lambda net, f: net.fc(net.prelu(f.mean((2, 3)) - 0.3)),
    "softmax": lambda net, f: net.fc(f.mean((2, 3))).softmax(-1),
    "some of the channels": lambda net, f: net.average(f).flatten(1)[:, 2:7],
    "flatten": flat(lambda net, f: net.fc(f.flatten(1))),
    "view(-1, 588)": flat(lambda net, f: net.fc(f.view(-1, 588))),
    "flatten in Keras order": flat(lambda net, f: net.fc(f.permute(0, 2, 3, 1).reshape(f.shape[0], -1))),
    "flatten, transposed": flat(lambda net, f: net.fc(f.transpose(2, 3).flatten(1))),
    "size computed in a loop": flat(lambda net, f: net.fc(f.view(-1, sizes(f)))),
    "int(prod(shape))": flat(lambda net, f: net.fc(f.view(-1, int(torch.prod(torch.tensor(f.shape[1:])))))),
    "mean of rows, flattened columns": (lambda net, f: net.fc(f.mean(2).flatten(1)), 7 * CHANNELS),
    "9 bins, average": (lambda net, f: net.fc(F.adaptive_avg_pool2d(f, 3).flatten(1)), 9 * CHANNELS),
    "9 bins, average, ReLU": (
        lambda net, f: net.fc((F.adaptive_avg_pool2d(f, 3) - 0.4).relu().flatten(1)),
        9 * CHANNELS,
    ),
    "9 bins, maximum": (lambda net, f: net.fc(F.adaptive_max_pool2d(f, 3).flatten(1)), 9 * CHANNELS),
}
"""Every head here converts. With the number of inputs of its linear layer, if not one per channel."""


def seeded(head: Head | tuple[Head, int]) -> Net:
    torch.manual_seed(0)
    return ordinary(Net(*head) if isinstance(head, tuple) else Net(head), WINDOW)  # type: ignore[return-value]


def crops(model: nn.Module, x: torch.Tensor, window: int, stride: int) -> torch.Tensor:
    """(1, num_classes, rows, cols): each window cropped and scored by the unconverted network."""
    rows = []
    for top in range(0, x.shape[2] - window + 1, stride):
        lefts = range(0, x.shape[3] - window + 1, stride)
        rows.append(torch.cat([model(x[:, :, top : top + window, left : left + window]) for left in lefts]))
    return torch.stack(rows).permute(2, 0, 1)[None]


def assert_equals_crops(model: nn.Module, window: int = WINDOW, channels: int = 3) -> None:
    network = convolutionize(model, window)
    geometry = network.geometry
    assert network.proof.relative_error <= EXACT and geometry.local and geometry.halo == 0
    x = images(1, window + 2 * geometry.stride, window + 3 * geometry.stride)[:, :channels]
    with torch.no_grad():
        expected, found = crops(model, x, window, geometry.stride), network(x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", HEADS)
def test_every_cell_of_a_larger_image_is_the_crop_of_its_window(name: str) -> None:
    assert_equals_crops(seeded(HEADS[name]))


class Recurrent(nn.Module):
    """One convolution, called twice: followed by another norm, by the same, or by none (CORnet-S)."""

    def __init__(self, second: str):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 5, stride=4), nn.Conv2d(8, 8, 1, bias=False)
        self.norms, self.second = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2)), second
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](self.conv(self.stem(x).relu())).relu()
        x = self.conv(x) if self.second == "none" else self.norms[self.second == "another"](self.conv(x))
        return self.fc(x.relu().mean((2, 3)))  # type: ignore[no-any-return]


class Restrided(nn.Module):
    """One convolution whose stride is set anew before each use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 5, stride=4), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        self.conv.stride = (2, 2)
        x = self.conv(x).relu()
        self.conv.stride = (1, 1)
        return self.fc(self.conv(x).mean((2, 3)))  # type: ignore[no-any-return]


class Averaged(nn.Module):
    """The mean of two networks' logits."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.ModuleList(
            nn.Sequential(unpadded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5))
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.both[0](x) + self.both[1](x)) / 2  # type: ignore[no-any-return]


def normalised(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    conv = norm(nn.Conv2d(3, 8, 5, stride=4))
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(nn.Linear(8, 5)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a convolution with two batch norms": lambda: Recurrent("another"),
    "a convolution with one batch norm, twice": lambda: Recurrent("the same"),
    "a convolution with a batch norm and without": lambda: Recurrent("none"),
    "a convolution whose stride changes": Restrided,
    "two networks, averaged": Averaged,
    "weight_norm": lambda: normalised(nn.utils.parametrizations.weight_norm),
    "spectral_norm": lambda: normalised(nn.utils.parametrizations.spectral_norm),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_unusual_networks_equal_their_crops(name: str) -> None:
    torch.manual_seed(0)
    assert_equals_crops(ordinary(NETWORKS[name](), WINDOW))


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_the_older_norms_of_weights_convert(norm: str) -> None:
    torch.manual_seed(0)
    assert_equals_crops(ordinary(normalised(getattr(nn.utils, norm)), WINDOW))


class Coordinates(nn.Module):
    """Adds the place of each pixel as two channels (CoordConv)."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.conv, self.fc = how, nn.Conv2d(5, 8, 5, 4), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        if self.how == "counted":
            ones = torch.ones_like(x[:, :1])
            rows, cols = ones.cumsum(2) / 64, ones.cumsum(3) / 64
        else:
            rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
            cols = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.fc(self.conv(torch.cat([x, rows, cols], 1)).relu().mean((2, 3)))  # type: ignore[no-any-return]


class AddCoordinates(nn.Module):
    """The same as a layer, whose code no tracer follows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        return torch.cat([x, rows], 1)


class Moved(nn.Module):
    """Moves rows or columns before, or averages a mirror image in."""

    def __init__(self, move: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.move, self.body, self.fc = move, unpadded(), nn.Linear(CHANNELS, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.body(x).mean((2, 3))) + self.fc(
            self.body(self.move(x)).mean((2, 3))
        )
        return logits


class RowByRow(nn.Module):
    """A recurrent layer that reads the cells of each row in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = unpadded(), nn.Linear(CHANNELS, 5)
        self.rnn = nn.GRU(CHANNELS, CHANNELS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.body(x)
        rows = self.rnn(f.permute(0, 2, 3, 1).reshape(-1, f.shape[3], CHANNELS))[0]
        logits: torch.Tensor = self.fc(rows.reshape(f.shape[0], f.shape[2], f.shape[3], -1).mean((1, 2)))
        return logits


class Stages(nn.Module):
    """Logits of two stages, whose maps have different strides."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, CHANNELS, 5, 4), nn.Conv2d(CHANNELS, CHANNELS, 3, 2)
        self.fc = nn.Linear(CHANNELS, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.one(x).relu()
        return self.fc(one.mean((2, 3))) + self.fc(self.two(one).mean((2, 3)))  # type: ignore[no-any-return]


def noisy(net: Net, f: torch.Tensor) -> torch.Tensor:
    return net.fc(F.dropout(f.mean((2, 3)), 0.5))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "logits of two stages": (Stages, "collapses maps of different sizes.*16 × 16.*7 × 7"),
    "a mirror image averaged in": (
        lambda: Moved(lambda x: x.flip(3)),
        r"moves whole rows or columns of the image \(flip",
    ),
    "cumulative sum over rows": (
        lambda: Moved(lambda x: x.cumsum(2)),
        r"in their order.*depends on where in the image",
    ),
    "sorted columns": (
        lambda: Moved(lambda x: torch.sort(x)[0]),
        r"in their order.*depends on where in the image",
    ),
    "a recurrent layer over the cells": (
        RowByRow,
        r"GRU.*in their order.*depends on where in the image",
    ),
    "torch.roll": (
        lambda: Moved(lambda x: torch.roll(x, 8, 2)),
        r"moves whole rows or columns of the image \(roll",
    ),
    "coordinates": (lambda: Coordinates("linspace"), "depends on where in the image a window lies"),
    "coordinates, counted": (lambda: Coordinates("counted"), "depends on where in the image a window lies"),
    "coordinates, in a layer": (
        lambda: nn.Sequential(
            AddCoordinates(), nn.Conv2d(4, 8, 5, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        ),
        "coordinates.*depends on where in the image a window lies",
    ),
    "dropout that is always on": (lambda: Net(noisy), "answers differently each time; look for dropout"),
    "median pooling": (
        lambda: Net(lambda net, f: net.fc(f.flatten(2).median(2)[0])),
        "median.*no sliding equivalent",
    ),
    "attention pooling": (
        lambda: Net(
            lambda net, f: net.fc((f.flatten(2) * f.flatten(2).sum(1, keepdim=True).softmax(2)).sum(2))
        ),
        "no sliding equivalent",
    ),
    "attention pooling, in the shape of the map": (
        lambda: Net(lambda net, f: net.fc((f * f.flatten(2).softmax(-1).view_as(f)).sum((2, 3)))),
        "softmax.*a window's share depends on the size of the image",
    ),
    "cells normalised together": (
        lambda: Net(lambda net, f: net.fc(F.normalize(f, dim=(2, 3)).sum((2, 3)))),
        "normalize.*a window's share depends on the size of the image",
    ),
    "cells divided by their total": (
        lambda: Net(lambda net, f: net.fc((f / (f.sum((2, 3), keepdim=True) + 1)).amax((2, 3)))),
        "div.*a window's share depends on the size of the image",
    ),
    "two outputs": (lambda: Net(lambda net, f: (net.fc(f.mean((2, 3))), f)), "returns tuple, not logits"),  # type: ignore[arg-type,return-value]
    "a fixed size": (
        lambda: Net(lambda net, f: net.fc((f + torch.ones(1, 12, 7, 7)).mean((2, 3)))),
        "no image larger",
    ),
}
"""What is refused, and why."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_slide_is_refused_by_name(name: str) -> None:
    torch.manual_seed(0)
    make, reason = REFUSED[name]
    with pytest.raises(ConversionError, match=reason):
        convolutionize(make().eval(), WINDOW)


def test_rounding_that_is_none_is_refused_with_the_layer_where_it_starts() -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.huge, self.fc = unpadded(), nn.Identity(), nn.Linear(CHANNELS, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            f = self.body(x) + 1e6
            return self.fc((f - 1e6).mean((2, 3)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    with pytest.raises(ConversionError, match=r"float32 changes .* over 1e-03; it starts at sub\(\)"):
        convolutionize(ordinary(Cancelling(), WINDOW), WINDOW)


def padded(mode: str = "zeros", **norm: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, padding_mode=mode), nn.BatchNorm2d(8, **norm), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, padding_mode=mode), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class Wrapping(nn.Module):
    """Circular padding that the receptive field does not know of: by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x[:, :, -4:], x[:, :, :-4]], 2)
        return self.fc(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (padded(), ""),
        (padded("reflect"), ""),
        (padded("circular"), r"0 \(Conv2d\)"),
        (padded(track_running_stats=False), r"1 \(BatchNorm2d\)"),
        (nn.Sequential(nn.CircularPad2d(1), padded()), r"0 \(CircularPad2d\)"),
    ],
)
def test_locality_is_told_with_its_cause(model: nn.Module, cause: str) -> None:
    torch.manual_seed(0)
    geometry = convolutionize(ordinary(model, 64), 64).geometry
    assert geometry.local == (not cause)
    assert re.fullmatch(cause, geometry.cause)


def test_locality_is_measured_and_not_only_read_from_the_graph() -> None:
    torch.manual_seed(0)
    geometry = convolutionize(ordinary(Wrapping(), 64), 64).geometry
    assert not geometry.local and geometry.cause == "cat()"


class Keeps(nn.Module):
    """Keeps a feature map of the last call."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc, self.kept = unpadded(), nn.Linear(CHANNELS, 5), None

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        self.kept = self.body(x)  # type: ignore[assignment]
        logits: torch.Tensor = self.fc(self.kept.mean((2, 3)))  # type: ignore[attr-defined]
        return logits if y is None else logits + y


def trained() -> nn.Module:
    model = Keeps()
    model(torch.randn(2, 3, WINDOW, WINDOW)).sum().backward()
    return model.eval()


def wrapped() -> Iterator[tuple[str, nn.Module]]:
    model = trained()
    yield "with activations of the last step", model
    yield "DataParallel", nn.DataParallel(model)
    yield (
        "AveragedModel",
        torch.optim.swa_utils.AveragedModel(
            nn.Sequential(unpadded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5))
        ),
    )
    yield "torch.compile", torch.compile(model)  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["with activations of the last step", "DataParallel", "AveragedModel", "torch.compile"]
)
def test_modules_convert_as_people_hold_them(name: str) -> None:
    torch.manual_seed(0)
    model = dict(wrapped())[name].eval()
    inner = getattr(model, "_orig_mod", model)
    network = convolutionize(model, WINDOW)
    x = images(2, WINDOW, WINDOW)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[:, :, 0, 0], inner(x), rtol=1e-4, atol=1e-5)


def scripted() -> nn.Module:
    torch.manual_seed(0)
    small = nn.Sequential(unpadded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5)).eval()
    return torch.jit.trace(small, torch.zeros(1, 3, WINDOW, WINDOW))  # type: ignore[no-any-return,no-untyped-call]


def quantised() -> nn.Module:
    torch.manual_seed(0)
    small = nn.Sequential(unpadded(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5)).eval()
    return torch.ao.quantization.quantize_dynamic(small, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return,no-untyped-call]


@pytest.mark.parametrize(
    ("make", "remedy"), [(scripted, "build the module in Python"), (quantised, "before it is quantised")]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_what_cannot_be_traced_still_scores_crops(make: Callable[[], nn.Module], remedy: str) -> None:
    model, image = (
        make(),
        (255 * images(1, WINDOW, WINDOW + 32)[0].clamp(0, 1)).byte().permute(1, 2, 0).numpy(),
    )
    with pytest.raises(ConversionError, match=f'{remedy}.*mode="windows"'):
        fcnconv.load(model, window=WINDOW)
    classifier = fcnconv.load(model, window=WINDOW, mode="windows", mean=(0,) * 3, std=(1,) * 3)
    found = classifier(image).logits[0, 0]
    x = torch.from_numpy(image[:WINDOW, :WINDOW].copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(x)[0], rtol=1e-4, atol=1e-5)


def test_weights_that_are_nan_are_named() -> None:
    model = seeded(HEADS["sum"])
    with torch.no_grad():
        model.fc.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"contain NaN: fc\.weight"):
        convolutionize(model, WINDOW)
    with pytest.raises(ModelError, match=r"contain NaN: fc\.weight"):
        fcnconv.load(model, window=WINDOW)


def test_an_answer_that_depends_on_the_batch_is_given_image_by_image() -> None:
    torch.manual_seed(0)
    model = padded(track_running_stats=False).eval()
    image = (255 * images(1, 64, 96)[0].clamp(0, 1)).byte().permute(1, 2, 0).numpy()
    classifier = fcnconv.load(model, window=64, mode="windows", mean=(0,) * 3, std=(1,) * 3)
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = crops(model, x, 64, 32)[0].permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(classifier(image).logits), expected, rtol=1e-4, atol=1e-5)


def test_the_documentation_lists_these_heads_and_refusals() -> None:
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    for name in [*HEADS, *NETWORKS, *REFUSED]:
        assert f"| {name} |" in text, f"{name}: python docs/maintain/make_heads.py"
