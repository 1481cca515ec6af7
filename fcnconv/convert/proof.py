"""The proof that a converted network still is the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fcnconv.errors import WAY_OUT, ConversionError
from fcnconv.grid import Geometry

TOLERANCE = 1e-4
"""Largest difference of logits that passes the proof, as a share of the largest logit."""


@dataclass(frozen=True)
class Proof:
    """How far a converted network is from its classifier at the native size.

    max_error: largest difference of a logit.
    scale: largest logit.
    spread: how far the logits of different inputs lie apart; near 0 the comparison would say nothing.
    """

    max_error: float
    scale: float
    spread: float

    @property
    def relative_error(self) -> float:
        """`max_error` as a share of `scale`."""
        return self.max_error / self.scale if self.scale else float("inf")


def check_grid(network: nn.Module, geometry: Geometry, device: torch.device) -> None:
    """Raises ConversionError if a larger image does not give the cells that the geometry says."""
    height, width = geometry.window + geometry.stride, geometry.window + 2 * geometry.stride
    try:
        shape = tuple(network(torch.zeros(1, 3, height, width, device=device)).shape[2:])
    except Exception as error:  # a network tied to its native size fails in its own way
        raise ConversionError(
            f"the network accepts no image larger than {geometry.window} px; {WAY_OUT}"
        ) from error
    if shape != (2, 3):
        raise ConversionError(
            f"{width} × {height} px give {shape[0]} rows and {shape[1]} columns, not 2 and 3; {WAY_OUT}"
        )


def prove(model: nn.Module, network: nn.Module, window: int, device: torch.device) -> Proof:
    """How far a network is from its classifier on four images, two of noise and two smooth ones.

    Raises ConversionError over `TOLERANCE`, or if the logits hardly depend on the images.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, window, window, generator=generator)
    smooth = F.interpolate(torch.randn(2, 3, 7, 7, generator=generator), window, mode="bicubic")
    x = torch.cat([noise, smooth]).to(device)
    expected = _logits(model(x))
    try:
        logits = network(x)
    except Exception as error:  # a head that was converted only in part fails in its own way
        raise ConversionError(f"the converted head does not run ({error}); {WAY_OUT}") from error
    if logits.shape != (*expected.shape, 1, 1):
        raise ConversionError(
            f"converted logits have shape {tuple(logits.shape)}, not {(*expected.shape, 1, 1)}"
        )
    proof = Proof(
        max_error=float((logits[:, :, 0, 0] - expected).abs().max()),
        scale=float(expected.abs().max()),
        spread=float((expected.amax(0) - expected.amin(0)).max()),
    )
    if not proof.spread > max(1e-3 * proof.scale, 1e-6):
        raise ConversionError(
            f"the logits hardly depend on the input (size {proof.scale:.1e}, spread {proof.spread:.1e}), "
            "so that equality would prove nothing; load trained weights"
        )
    if not proof.relative_error <= TOLERANCE:
        raise ConversionError(
            f"the converted network is not the classifier: logits differ by {proof.max_error:.1e} "
            f"of {proof.scale:.1e}, over {TOLERANCE:.0e} of it; {WAY_OUT}"
        )
    return proof


def _logits(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise ConversionError(f"the model returns {type(output).__name__}, not logits (N, num_classes)")
    return output
