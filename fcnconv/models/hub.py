"""Gets files from the Hugging Face hub with the hub's own client (``huggingface_hub``).

The client comes with timm and transformers.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from fcnconv.errors import ModelError, UsageError, first_line
from fcnconv.system.records import Facts, remembered

HUB = "hf-hub:"
"""Prefix for models of the hub: ``hf-hub:user/repo`` or ``hf-hub:user/repo@revision``."""

_REACHED_S = 5.0
"""Seconds that the hub has to answer at all. Its client would try for 24 s without a network."""


def parse_repository(name: str) -> tuple[str, str]:
    """Splits the name of a hub model into repository and revision. Raises UsageError if it is not one."""
    match = re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise UsageError(
            f"{name!r} names no repository; write hf-hub:USER/REPO, or hf-hub:USER/REPO@REVISION"
        )
    return match[1], match[2] or "main"


def hub_file(repository: str, revision: str, filename: str) -> Path | None:
    """Returns the path of a repository's file in the hub's own cache, and downloads it first if it is
    missing.

    Args:
        repository: ``user/repo``.
        revision: branch, tag or commit.
        filename: path inside the repository.

    Returns:
        The path, or None if the repository has no such file.

    Raises:
        ModelError: the file cannot be downloaded. The message says what to do.
    """

    def fetched() -> Facts:
        return {"path": _fetched(repository, revision, filename)}

    def there(facts: Facts) -> Path:
        path = Path(facts["path"])
        path.stat()
        return path

    # The client is slow to import, and contacts the hub each time.
    where = (os.environ.get(name, "") for name in ("HF_ENDPOINT", "HF_HOME"))
    try:
        return remembered(("hub", *where, repository, revision, filename), fetched, there)
    except _AbsentError:  # not cached: the file may be added later
        return None


class _AbsentError(Exception):
    """The repository has no such file."""


def _fetched(repository: str, revision: str, filename: str) -> str:
    name = f"hf-hub:{repository}" + (f"@{revision}" if revision != "main" else "")
    try:
        from huggingface_hub import constants, errors, hf_hub_download
    except ImportError as error:
        raise ModelError(
            f"{name}: the hub's files need its client; run: pip install huggingface_hub"
        ) from error

    def get(here: bool) -> str:
        return str(hf_hub_download(repository, filename, revision=revision, local_files_only=here))

    try:
        return get(here=True)
    except errors.EntryNotFoundError:  # not in its cache
        pass
    way_out = f"put its files in a folder and use local-dir:FOLDER ({filename} is missing)"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name}: is not in the cache, and HF_HUB_OFFLINE forbids downloads; {way_out}")
    if unreachable := _unreachable(constants.ENDPOINT):
        raise ModelError(
            f"{name}: is not in the cache, and the hub cannot be reached ({unreachable}); {way_out}"
        )
    try:
        return get(here=False)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(f"{name}: the hub has no such repository, or it is private") from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(f"{name}: the hub does not answer ({first_line(error)}); {way_out}") from error
    except errors.EntryNotFoundError as error:
        raise _AbsentError from error
    except Exception as error:  # its errors come from many libraries without a common base class
        raise ModelError(
            f"{name}: {filename} cannot be downloaded ({first_line(error)}); {way_out}"
        ) from error


def _unreachable(endpoint: str) -> str:
    """Why the hub cannot be reached; empty if it can be, or if a proxy is set."""
    parts = urlsplit(endpoint)
    proxies = (f"{scheme}_proxy" for scheme in ("all", parts.scheme))
    if any(os.environ.get(case(proxy)) for proxy in proxies for case in (str.lower, str.upper)):
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), _REACHED_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def files_of(repository: str, revision: str) -> Callable[[str], Path | None]:
    """The files of a repository: name -> path or None, as from `hub_file`."""
    return lambda filename: hub_file(repository, revision, filename)
