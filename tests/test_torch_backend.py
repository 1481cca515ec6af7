"""The torch backend: devices, half precision with its error told, and a device that is out of memory."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcnconv.backends import torch as backend
from fcnconv.backends.torch import find_device, half_error, half_type, run_in_parts, torch_run
from fcnconv.convert import FullyConvolutional, convolutionize
from fcnconv.errors import UsageError
from fcnconv.provenance import FLOAT32, Arithmetic
from fcnconv.scores import FloatArray

CPU = torch.device("cpu")


def classifier(*head: nn.Module) -> nn.Module:
    """A seeded network with a 16-px window, a stride of 4 and zero padding."""
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(*body, *head, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@cache
def converted(stride: int | None = None) -> FullyConvolutional:
    return convolutionize(classifier(), 16, stride)


class ShortOfMemory:
    """A backend on a device that holds no more than `limit` pixels, and counts its runs."""

    def __init__(
        self,
        limit: int,
        error: type[Exception] = torch.OutOfMemoryError,
        network: FullyConvolutional | None = None,
    ):
        self.run, self.limit, self.error, self.sizes = torch_run(network or converted()), limit, error, [0]

    def __call__(self, x: FloatArray) -> FloatArray:
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        if pixels > self.limit:
            raise self.error("CUDA out of memory")
        self.sizes.append(pixels)
        return self.run(x)


def pictures(count: int, height: int, width: int) -> FloatArray:
    return np.random.default_rng(0).standard_normal((count, 3, height, width), np.float32)


@pytest.mark.parametrize("stride", [4, 2])
@settings(max_examples=40)
@given(count=st.integers(1, 3), rows=st.integers(1, 30), cols=st.integers(1, 30), share=st.floats(0.2, 1))
def test_smaller_parts_give_the_same_logits(
    stride: int, count: int, rows: int, cols: int, share: float
) -> None:
    network = converted(stride)
    x = pictures(count, 16 + 4 * (rows - 1), 16 + 4 * (cols - 1))
    short = ShortOfMemory(max(int(share * x[:, 0].size), 56 * 56), network=network)
    logits = run_in_parts(short, network.geometry, backend._is_out_of_memory)(x)
    expected = torch_run(network)(x)
    assert logits.shape == expected.shape and np.abs(logits - expected).max() <= 1e-6
    assert max(short.sizes) <= short.limit


def test_halving_ends_where_nothing_smaller_is_left() -> None:
    with pytest.raises(MemoryError):
        run_in_parts(ShortOfMemory(10), converted().geometry, backend._is_out_of_memory)(pictures(2, 64, 64))


def test_a_network_that_sees_the_whole_image_is_not_cut() -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    geometry = convolutionize(classifier(Gate()), 16).geometry
    assert not geometry.local
    run = run_in_parts(ShortOfMemory(64 * 64), geometry, backend._is_out_of_memory)
    assert run(pictures(2, 64, 64)).shape == (2, 5, 13, 13)  # the batch may be
    with pytest.raises(MemoryError):
        run(pictures(1, 68, 68))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class OtherError(Exception):
        def __str__(self) -> str:
            return "no kernel image"

    with pytest.raises(OtherError):
        run_in_parts(ShortOfMemory(10, OtherError), converted().geometry, backend._is_out_of_memory)(
            pictures(1, 64, 64)
        )


def test_half_precision_is_measured_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    monkeypatch.setattr(backend, "has_bfloat16", lambda: True)
    for precision in ("auto", "float32"):
        assert half_type(converted(), CPU, 16, precision) == (None, FLOAT32)
    error, tolerance = (
        half_error(converted(), CPU, torch.bfloat16, 16),
        backend.HALF_TOLERANCE[torch.bfloat16],
    )
    assert 1e-4 < error < tolerance
    half, arithmetic = half_type(converted(), CPU, 16, "bfloat16")
    assert half is torch.bfloat16 and arithmetic == Arithmetic("bfloat16", error) and not caplog.records
    x = pictures(1, 64, 64)
    exact, half = torch_run(converted())(x), torch_run(converted(), CPU, torch.bfloat16)(x)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 3 * tolerance * np.abs(exact).max()
    monkeypatch.setitem(backend.HALF_TOLERANCE, torch.bfloat16, error / 2)
    assert half_type(converted(), CPU, 16, "bfloat16") == (None, FLOAT32)
    assert f"using float32, because bfloat16 would change logits by {error:.1e}" in caplog.text
    monkeypatch.setattr(backend, "has_bfloat16", lambda: False)
    assert half_type(converted(), CPU, 16, "bfloat16") == (None, FLOAT32)
    assert "this processor has no native bfloat16" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    assert find_device("auto").type in ("cpu", "mps")
    with pytest.raises(UsageError, match="torch sees no device 'cuda:1' on this machine; there is"):
        find_device("cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_in_half_precision_is_near_float32(lite0) -> None:
    from fcnconv import load

    image = np.random.default_rng(1).integers(0, 256, (400, 500, 3), np.uint8)
    found, oracle = load(device="cuda")(image).logits, lite0(image).logits
    assert np.abs(found - oracle).max() <= 3 * backend.HALF_TOLERANCE[torch.float16] * np.abs(oracle).max()
