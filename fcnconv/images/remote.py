"""Reads remote files by their address (``s3://``, ``gs://``, ``https://``, …) with fsspec.

The libraries handle credentials. `shown_address` removes them from every address that is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from fcnconv.errors import FcnconvError, ImageError, UsageError, first_line

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def is_address(name: str) -> bool:
    """Whether a path is the address of a remote file, and not the name of an existing local file."""
    if _ADDRESS.match(name) is None or is_local(name):
        return False
    with suppress(OSError, ValueError):  # longer than any file name, or a null byte
        return not Path(name).exists()
    return True


def is_local(name: str) -> bool:
    """Whether it is the address of a local file."""
    return name[:8].lower() == "file:///"


def local_path(name: str) -> str:
    """The path of a local file, which may be given as an address, ``file:///…``."""
    return unquote(name[7:]) if is_local(name) else name


def shown_address(address: str) -> str:
    """An address without anything that could be a secret: a user's name and password, a signature."""
    if not is_address(address):
        return address
    scheme, _, rest = address.partition("://")  # by hand, because a parser may reject the address
    host, slash, path = re.split("[?#]", rest)[0].partition("/")
    return f"{scheme.lower()}://{host.rpartition('@')[2]}{slash}{path}"


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        UsageError: if a package is missing.
    """
    scheme = address.partition("://")[0].lower()
    if find_spec("fsspec") is None:
        raise UsageError(
            f"{shown_address(address)}: reading {scheme}:// needs the extra remote: pip install "
            "'fcnconv[remote]'; or send the image to standard input: curl -s … | fcnconv classify"
        )
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UsageError(
            f"{shown_address(address)}: {first_line(error)}: pip install 'fcnconv[remote]'"
        ) from error
    except ValueError as error:
        raise UsageError(f"{shown_address(address)}: {first_line(error)}") from error
    return system, path


def fetch(address: str) -> bytes:
    """The content of a remote file.

    Raises:
        ImageError: if it cannot be fetched.
        UsageError: if a package is missing.
    """
    system, path = file_system(address)
    with explained(address):
        return bytes(system.cat_file(path))


def fetch_to(address: str, copy: Path) -> None:
    """Writes the content of a remote file into a local file. Raises the same errors as `fetch`."""
    system, path = file_system(address)
    with explained(address):
        system.get_file(path, str(copy))


@contextmanager
def opened_elsewhere(address: str) -> Iterator[BinaryIO]:
    """Opens a remote file as a stream. Raises the same errors as `fetch`."""
    system, path = file_system(address)
    with explained(address):
        file = system.open(path, "rb")
    with file:
        yield file


@contextmanager
def explained(
    address: str,
    what: str = "cannot be fetched",
    error_kind: type[FcnconvError] = ImageError,
    named: str | None = None,
) -> Iterator[None]:
    """Turns any exception of a storage library into one of our own, without an address that could hold
    credentials.

    Args:
        address: of the file.
        what: the action that failed.
        error_kind: the class of the new error.
        named: how the message names the file, if not by its address.
    """
    named = named or shown_address(address)
    try:
        yield
    except (FcnconvError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise error_kind(f"{named}: not found") from error
    except Exception as error:
        reason = first_line(error).replace(address, shown_address(address))
        raise error_kind(f"{named}: {what}: {reason}") from error
