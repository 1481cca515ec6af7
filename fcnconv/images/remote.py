"""Files elsewhere, by their address (``s3://``, ``gs://``, ``https://``, …), read with fsspec.

Credentials are the libraries' business, and no address is shown with what could be some: `shown_address`.
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
    """Whether what is meant as a path is the address of something elsewhere, and not a file of such a
    name.
    """
    if _ADDRESS.match(name) is None or is_local(name):
        return False
    with suppress(OSError, ValueError):  # longer than any name of a file, a null byte
        return not Path(name).exists()
    return True


def is_local(name: str) -> bool:
    """Whether it is the address of a file of this machine."""
    return name[:8].lower() == "file:///"


def local_path(name: str) -> str:
    """The path of a file that may be named by its address, ``file:///…``."""
    return unquote(name[7:]) if is_local(name) else name


def shown_address(address: str) -> str:
    """An address without what could be a secret in it: a user's name and password, a signature."""
    if not is_address(address):
        return address
    scheme, _, rest = address.partition("://")  # by hand, as an address may be none that a parser takes
    host, slash, path = re.split("[?#]", rest)[0].partition("/")
    return f"{scheme.lower()}://{host.rpartition('@')[2]}{slash}{path}"


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and what that calls it. Raises UsageError without the packages."""
    scheme = address.partition("://")[0].lower()
    if find_spec("fsspec") is None:
        raise UsageError(
            f"{shown_address(address)}: {scheme}:// is read by the extra remote, pip install "
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
    """The content of a file elsewhere. Raises ImageError, and UsageError without the packages."""
    system, path = file_system(address)
    with explained(address):
        return bytes(system.cat_file(path))


def fetch_to(address: str, copy: Path) -> None:
    """Fills a file of this machine with the content of one elsewhere. Raises as `fetch`."""
    system, path = file_system(address)
    with explained(address):
        system.get_file(path, str(copy))


@contextmanager
def opened_elsewhere(address: str) -> Iterator[BinaryIO]:
    """A file elsewhere, to be read as a stream. Raises as `fetch`."""
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
    """Turns whatever a storage raises, each kind errors of its own, into one of ours, without an address that
    could hold credentials.

    what: failed. named: what is meant, if not the address itself.
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
