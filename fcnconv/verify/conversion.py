"""The proof of a conversion, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fcnconv.models import ModelSpec
from fcnconv.provenance import EXACT, Conversion


def prove(spec: ModelSpec) -> Conversion:
    """Converts a model and proves the conversion. Raises ConversionError if that fails."""
    spec.require_fcn()
    from fcnconv.convert import convolutionize

    return convolutionize(spec.build(spec.weights()), spec.window).conversion


def proof_text(model: str, conversion: Conversion) -> str:
    """Returns a proof as lines for people. model: its name."""
    geometry, proof = conversion.geometry, conversion.proof
    local = "local" if geometry.local else f"not local: {geometry.cause} looks at the whole image"
    return "\n".join(
        [
            f"{model}: proved equal to the classifier at {geometry.window} × {geometry.window} px, and "
            "window by "
            "window on larger images",
            f"  max |Δlogit|      {proof.max_error:.1e} of {proof.scale:.1f} in float64: "
            f"{proof.relative_error:.1e}, at most {EXACT:.0e} allowed",
            f"  rounding          {proof.rounding:.1e} of the largest logit, by float32",
            f"  stride            {geometry.stride} px",
            f"  receptive field   {geometry.receptive_field} px, halo {geometry.halo} px, {local}",
            *(f"  {change}" for change in conversion.changes),
        ]
    )


def proof_record(conversion: Conversion) -> dict[str, Any]:
    """Returns a proof for programs: the fields of the geometry and of the proof, ``tolerance``, and
    ``changes``.
    """
    geometry, proof = asdict(conversion.geometry), asdict(conversion.proof)
    return {**geometry, **proof, "tolerance": EXACT, "changes": conversion.changes}
