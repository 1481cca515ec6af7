"""The conversion of small networks, head by head, and what is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from ordinary import images, ordinary
from torch import nn

from fcnconv.convert import EXACT, TOLERANCE, convolutionize, vectors
from fcnconv.convert.graph import POINTWISE
from fcnconv.convert.probes import Float64, probe
from fcnconv.convert.proof import compare
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
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)) if isinstance(self.head, nn.Module) else self.head(self, self.body(x))  # type: ignore[call-arg,arg-type]


def root_mean_square(x: torch.Tensor, axis: int) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + 1e-3)


def two_axes(x: torch.Tensor) -> torch.Tensor:
    torch._assert(x.ndim == 2, "not a batch of vectors")
    return x


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
    "convolution of all": nn.Sequential(nn.Conv2d(C, 9, 4), nn.ReLU(), nn.Flatten(), nn.Linear(9, 5)),
    "channels last": lambda net, f: net.linear(f.permute(0, 2, 3, 1).mean((1, 2))),
    "norm as a function": lambda net, f: net.linear(F.layer_norm(f.mean((2, 3)), (C,))),
    "mean square": lambda net, f: net.linear(root_mean_square(f.mean((2, 3)), -1)),
    "mean square, axes kept": lambda net, f: net.linear(
        root_mean_square(f.mean((2, 3), keepdim=True), 1).flatten(1)
    ),
    "scaled": lambda net, f: net.linear(net.scale * f.mean((2, 3))),
    "asserted": lambda net, f: net.linear(two_axes(f.mean((2, 3)))),
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


class Deep(nn.Module):
    """Layers that magnify each other's rounding, as do the hundred of an untrained ResNet-101."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)) for _ in range(7)
        )
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = 2 * torch.sin(x + 3 * layer(x))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


def test_float32s_rounding_is_told_and_not_taken_for_a_mistake(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    proof = convolutionize(ordinary(Deep(), WINDOW), WINDOW).proof
    assert proof.relative_error <= EXACT < TOLERANCE < proof.rounding
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.name == "fcnconv"
    assert f"float32 changes this network's logits by {proof.rounding:.1e} of the largest" in record.message
    caplog.clear()
    proof = convolutionize(seeded(HEADS["average"]), WINDOW).proof
    assert proof.relative_error <= EXACT and 0 < proof.rounding < 1e-5 and not caplog.records


def test_a_finer_stride_of_such_a_network_is_not_refused() -> None:
    torch.manual_seed(0)
    assert convolutionize(ordinary(Deep(), WINDOW), WINDOW, 4).geometry.phases == 2


class Stubborn(nn.Module):
    """Code that asks for float32, and a constant that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 4, 4)
        self.blur = torch.full((8, 1, 3, 3), 1 / 9)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(self.body(x).float(), self.blur, padding=1, groups=8).to(torch.float32)
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(x + torch.ones(()), 1).flatten(1))
        return logits


def test_networks_that_insist_on_float32_are_proved_in_float64_too() -> None:
    torch.manual_seed(0)
    assert convolutionize(Stubborn().eval(), WINDOW).proof.relative_error <= EXACT


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, (3, 5), (2, 1), (1, 2), (1, 2), groups=6),
        nn.Conv2d(6, 6, 3, 2, groups=6, bias=False),
        nn.Conv2d(6, 6, 4, padding="same", groups=6),
        nn.Conv2d(6, 12, 3, groups=6),
        nn.Conv2d(6, 6, 3, groups=3),
        nn.Conv2d(6, 4, 3),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_convolutions_in_float64_are_torchs(layer: nn.Conv2d) -> None:
    x = torch.randn(2, 6, 13, 17)
    with torch.no_grad():
        with Float64():
            found = layer(x)
        expected = layer.double()(x.double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_the_comparison_refuses_other_shapes_and_what_is_no_number() -> None:
    network = nn.Conv2d(3, 4, 1)
    x = probe(network, 2, 8, 8)
    assert (
        torch.equal(x, probe(network, 2, 8, 8)) and compare("same", x, x.numpy(), EXACT, ConversionError) == 0
    )
    with pytest.raises(
        ConversionError, match=r"cut off: logits have shape \(2, 3, 8, 7\), not \(2, 3, 8, 8\)"
    ):
        compare("cut off", x, x[:, :, :, 1:], EXACT, ConversionError)
    with pytest.raises(ConversionError, match="lost: logits differ by nan"):
        compare("lost", x, x * float("nan"), EXACT, ConversionError)


MORE_ARGUMENTS = {"threshold": (0.1, 0.0), "prelu": (torch.tensor(0.2),)}


@pytest.mark.parametrize("name", sorted(name for name in POINTWISE if hasattr(F, name)))
def test_pointwise_functions_may_stand_before_and_after_the_pool(name: str) -> None:
    if name in ("batch_norm", "dropout", "dropout2d"):
        pytest.skip("in training they depend on more than the cell")
    function, more = getattr(F, name), MORE_ARGUMENTS.get(name, ())

    def head(net: Net, features: torch.Tensor) -> torch.Tensor:
        pooled = F.adaptive_avg_pool2d(function(3 * features - 2, *more), 1).flatten(1)
        logits: torch.Tensor = net.linear(function(pooled + 0.7, *more))
        return logits

    network = convolutionize(seeded(head), WINDOW)
    assert network.geometry.local and network.proof.relative_error <= EXACT


def test_the_network_is_in_evaluation_mode_with_all_its_layers() -> None:
    network = convolutionize(seeded(HEADS["batch norm"]).train(), WINDOW)
    assert not any(module.training for module in network.modules())


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


class Positioned(nn.Module):
    """Adds what depends on the place, for places of the native size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.linear = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
        self.position = nn.Parameter(torch.randn(8, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear((self.body(x) + self.position).mean((2, 3)))
        return logits


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
        (Gated(), r"Gated cannot be traced at 32 × 32.*control flow.*mode=.windows"),
        (nn.Sequential(nn.Conv2d(3, 5, 32), nn.Linear(7, 5)), r"fails on images of 32 × 32 px"),
        (nn.Sequential(nn.Conv2d(3, 5, 3, 2)), r"returns \(1, 5, 15, 15\), not logits"),
        (nn.Sequential(nn.Conv2d(3, 5, 4, (4, 8)), nn.AdaptiveAvgPool2d(1), nn.Flatten()), r"4 × 8 px apart"),
        (Attention(), r"MultiheadAttention.*mode=.windows"),
        (Positioned(), r"accepts no image larger.*mode=.windows"),
    ],
)
def test_what_does_not_convert_says_why(
    model: nn.Module, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConversionError, match=message):
        convolutionize(model, 32)
    assert capfd.readouterr() == ("", "")


class Untraceable(nn.Module):
    """Attention over all cells, by code that asks what only a real image tells."""

    def __init__(self, questions: str) -> None:
        super().__init__()
        self.questions, self.project = questions, nn.Conv2d(C, C, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.questions == "device":
            with torch.autocast(device_type=x.device.type, enabled=False):
                return self.attend(x)
        return self.attend(x) if x.shape[2] % 8 == 0 else self.attend(x) * 1.0

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.project(x).flatten(2)
        weights = torch.softmax(cells.transpose(1, 2) @ cells / cells.shape[1], 2)
        return x + (cells @ weights.transpose(1, 2)).reshape(x.shape)


@pytest.mark.parametrize("questions", ["device", "size"])
def test_a_layer_that_no_tracer_follows_is_kept_in_one_piece(questions: str) -> None:
    torch.manual_seed(1)
    layer = Untraceable(questions)
    model = ordinary(
        Net(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5))), WINDOW
    )
    network = convolutionize(model, WINDOW)
    assert network.geometry.stride == STRIDE and not network.geometry.local
    x = images(2, WINDOW + STRIDE, WINDOW + 2 * STRIDE)
    with torch.no_grad():
        features = layer.eval()(model.body(x))
        means = F.avg_pool2d(features, 4, 1).permute(0, 2, 3, 1)
        expected = model.head[3](means).permute(0, 3, 1, 2)  # type: ignore[index,union-attr]
    assert network(x).shape == (2, 5, 2, 3)
    assert torch.allclose(network(x), expected, atol=1e-5)


class Folding(nn.Module):
    """Four pixels folded into channels by a change of axes, which has no stride of its own to read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return self.conv(x.reshape(n, 4 * c, h // 2, w // 2))


def test_a_stride_that_cannot_be_read_is_measured() -> None:
    torch.manual_seed(1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5))
    model = ordinary(nn.Sequential(Folding(), Net(head)), 2 * WINDOW)
    network = convolutionize(model, 2 * WINDOW)
    assert network.geometry.stride == 2 * STRIDE and not network.geometry.local
    x = images(1, 2 * WINDOW, 2 * WINDOW + 2 * STRIDE)
    logits = network(x)
    with torch.no_grad():
        means = F.avg_pool2d(model[1].body(model[0](x)), 4, 1).permute(0, 2, 3, 1)  # type: ignore[index]
        assert torch.allclose(logits, head[2](means).permute(0, 3, 1, 2), atol=1e-5)


def test_padding_that_follows_from_the_image_is_refused() -> None:
    def head(net: Net, f: torch.Tensor) -> torch.Tensor:
        padded = F.pad(f, (f.size(3) // 4, 0, f.size(2) // 4, 0))
        return net.linear(F.max_pool2d(padded, 2).mean((2, 3)))

    with pytest.raises(
        ConversionError, match=r"pad\(\) pads or slides by an amount that depends on the image"
    ):
        convolutionize(seeded(head), WINDOW)


def test_logits_that_prove_nothing_are_refused() -> None:
    model = seeded(HEADS["average"])
    with torch.no_grad():
        model.linear.weight.zero_()
    with pytest.raises(ConversionError, match="the logits hardly depend on the input"):
        convolutionize(model, WINDOW)


def test_a_wrong_conversion_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = vectors.weight_of_cells
    monkeypatch.setattr(vectors, "weight_of_cells", lambda *given: real(*given).roll(1, 0))
    with pytest.raises(
        ConversionError, match=r"not the classifier at 32 × 32 px: logits differ by .* over 1e-09"
    ):
        convolutionize(seeded(HEADS["average"]), WINDOW)
