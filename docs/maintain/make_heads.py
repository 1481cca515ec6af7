"""Prints docs/models.md's table of heads and operations, from the tests that convert or refuse each of them.

    python docs/maintain/make_heads.py

Each network is converted here; the table says what came of it.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import torch
from ordinary import ordinary
from test_heads import HEADS, NETWORKS, REFUSED, WINDOW, seeded

from fcnconv import convolutionize
from fcnconv.errors import WAY_OUT, ConversionError


def main() -> None:
    """Prints one row per head, network and refusal."""
    logging.disable()
    warnings.simplefilter("ignore")
    print("| head or operation | converts | details |\n|---|---|---|")
    for name in HEADS:
        print(f"| {name} | yes | {_proof(seeded(HEADS[name]))} |")
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        print(f"| {name} | yes | {_proof(ordinary(make(), WINDOW))} |")
    for name, (make, _) in REFUSED.items():
        torch.manual_seed(0)
        try:
            convolutionize(make().eval(), WINDOW)
        except ConversionError as error:
            print(f"| {name} | no | {str(error).replace(f'; {WAY_OUT}', '')} |")


def _proof(model: torch.nn.Module) -> str:
    return "; ".join(convolutionize(model, WINDOW).conversion.changes)


if __name__ == "__main__":
    main()
