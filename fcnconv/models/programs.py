"""Recognises files that contain a torch program, code and weights, and refuses them.

The file names in the archive show the kind. Nothing in the file is run. Every reader of weights checks here
first.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from fcnconv.errors import ALLOW_TORCHSCRIPT, ModelError

Program = Literal["TorchScript", "torch.export"]


def program_kind(path: Path) -> Program | None:
    """The kind of program in a file; None if the file contains weights, or is not a torch file.

    Only the list of names in the archive is read. Raises OSError.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2] for name in archive.namelist()}
    if any(entry.startswith("models/") or entry == "archive_format" for entry in entries):
        return "torch.export"
    return "TorchScript" if any(entry.startswith("code/") for entry in entries) else None


def refuse_program(path: Path, kind: Program) -> ModelError:
    """The error for a program that the user has not allowed to run, with the alternatives."""
    if kind == "torch.export":
        return ModelError(
            f"{path}: refused: torch.export files contain code, which torch runs when it loads them; save "
            "the state dict and name its architecture with --arch, or pass the loaded module to fcnconv.load "
            "in Python"
        )
    beside = _weights_beside(path)
    instead = f"name {beside} instead" if beside else "save its state dict and name the architecture"
    return ModelError(
        f"{path}: refused: TorchScript files contain code, which torch runs when it loads them. If you trust "
        f"the file, add {ALLOW_TORCHSCRIPT}; otherwise {instead} with --arch"
    )


def _weights_beside(path: Path) -> Path | None:
    """The safetensors file of the same network, under one of the usual names."""
    usual = (path.with_suffix(".safetensors"), path.parent / "model.safetensors")
    return next((each for each in usual if each.is_file()), None)
