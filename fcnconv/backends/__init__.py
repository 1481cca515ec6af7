"""What runs a network over a region. A backend is a function; each file here makes one kind."""

from __future__ import annotations

from collections.abc import Callable

from fcnconv.scores import FloatArray

Run = Callable[[FloatArray], FloatArray]
"""float32 (N, 3, H, W), normalised -> float32 logits (N, num_classes, rows, cols)."""
