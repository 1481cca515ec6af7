"""The conversion of small networks, head by head, and what is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from ordinary import images, ordinary
from torch import nn

from fcnconv.convert import TOLERANCE, convolutionize
from fcnconv.convert.head import Head
from fcnconv.errors import ConversionError

WINDOW, STRIDE, CHANNELS = 32, 8, 12


class Net(nn.Module):
    """A body of stride 8, 4 × 4 cells at the native size, and a head."""

    def __init__(self, head: nn.Module | Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, CHANNELS, 3, 2, 1), nn.BatchNorm2d(CHANNELS), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.Linear(CHANNELS, 5)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)) if isinstance(self.head, nn.Module) else self.head(self, self.body(x))  # type: ignore[call-arg,arg-type]


C = CHANNELS
HEADS: dict[str, object] = {
    "average": lambda net, f: net.linear(F.adaptive_avg_pool2d(f, 1).flatten(1)),
    "native average": lambda net, f: net.linear(F.avg_pool2d(f, 4).view(f.size(0), -1)),
    "mean": lambda net, f: net.linear(f.mean([2, 3])),
    "mean, axes kept": lambda net, f: net.linear(f.mean((-2, -1), keepdim=True).squeeze(-1).squeeze(-1)),
    "amax": lambda net, f: net.linear(torch.amax(f, dim=(2, 3))),
    "max pooling": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(C, 5)),
    "flatten alone": nn.Sequential(nn.Flatten(), nn.Linear(C * 16, 9), nn.ReLU(), nn.Linear(9, 5)),
    "adaptive 4": nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(C * 16, 5)),
    "adaptive 2": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(C * 4, 5)),
    "adaptive 3, bins that overlap": nn.Sequential(
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(C * 9, 5)
    ),
    "no bias": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5, bias=False)),
    "batch norm": nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(C), nn.Dropout(0.5), nn.Linear(C, 5)
    ),
    "layer norm": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(C), nn.Linear(C, 5)),
    "softmax": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5), nn.LogSoftmax(1)),
    "convolution": nn.Sequential(nn.Conv2d(C, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
}


def seeded(head: object) -> nn.Module:
    torch.manual_seed(0)
    return ordinary(Net(head), WINDOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HEADS)
def test_each_cell_is_the_classifiers_head_on_its_features(name: str) -> None:
    model = seeded(HEADS[name])
    network = convolutionize(model, WINDOW)
    geometry = network.geometry
    assert (geometry.stride, geometry.local) == (STRIDE, True)
    x = images(2, WINDOW + 2 * STRIDE, WINDOW + 4 * STRIDE)
    with torch.no_grad():
        logits, features = network(x), model.body(x)
        assert logits.shape == (2, 5, 3, 5)
        for row in range(3):
            for col in range(5):
                cut = features[:, :, row : row + 4, col : col + 4]
                expected = model.head(cut) if isinstance(model.head, nn.Module) else model.head(model, cut)
                error = (logits[:, :, row, col] - expected).abs().max()
                assert error <= TOLERANCE * expected.abs().max()


def test_the_callers_model_is_left_as_it_was() -> None:
    model = seeded(HEADS["batch norm"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    convolutionize(model, WINDOW)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_network_keeps_the_models_type(dtype: torch.dtype) -> None:
    model = seeded(HEADS["average"]).to(dtype)
    network = convolutionize(model, WINDOW)
    x = images(1, WINDOW, WINDOW).to(dtype)
    with torch.no_grad():
        logits, expected = network(x)[:, :, 0, 0], model(x)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)


class Gated(nn.Module):
    """Control flow that depends on the pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Attention(nn.Module):
    """A vision transformer's habit: every cell looks at every other, and the first one answers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        mixed: torch.Tensor = self.attention(tokens, tokens, tokens)[0][:, 0]
        return mixed


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Gated(), r"Gated cannot be traced at 32 × 32 \(.*control flow.*--mode windows"),
        (nn.Sequential(nn.Conv2d(3, 5, 32), nn.Linear(7, 5)), r"cannot be traced at 32 × 32"),
        (nn.Sequential(nn.Conv2d(3, 5, 3, 2)), r"no pooling or flattening ends the spatial axes"),
        (nn.Sequential(nn.Conv2d(3, 5, 4, (4, 8)), nn.AdaptiveAvgPool2d(1), nn.Flatten()), r"4 × 8 px apart"),
        (Attention(), r"--mode windows"),
    ],
)
def test_what_does_not_convert_says_why(
    model: nn.Module, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConversionError, match=message):
        convolutionize(model, 32)
    assert capfd.readouterr() == ("", "")


def test_logits_that_prove_nothing_are_refused() -> None:
    model = seeded(HEADS["average"])
    with torch.no_grad():
        model.linear.weight.zero_()
    with pytest.raises(ConversionError, match="the logits hardly depend on the input"):
        convolutionize(model, WINDOW)


def test_a_wrong_conversion_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Head._convolution

    def altered(self: object, linear: nn.Linear) -> nn.Conv2d:
        conv = real(self, linear)  # type: ignore[arg-type]
        conv.weight = nn.Parameter(conv.weight.roll(1, 0), requires_grad=False)
        return conv

    monkeypatch.setattr(Head, "_convolution", altered)
    with pytest.raises(ConversionError, match=r"not the classifier: logits differ by .* over 1e-04"):
        convolutionize(seeded(HEADS["average"]), WINDOW)
