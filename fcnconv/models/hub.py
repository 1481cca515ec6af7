"""Files of the Hugging Face hub, by its own client (``huggingface_hub``, which comes with timm and
transformers).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from fcnconv.errors import ModelError, UsageError, first_line
from fcnconv.models.facts import Facts, remembered

HUB = "hf-hub:"
"""What the name of a model of the hub begins with: ``hf-hub:user/repo`` or ``hf-hub:user/repo@revision``."""

_REACHED_S = 5.0
"""Seconds in which the hub must answer at all. Its client would try for 24 s where there is no network."""


def parse_repository(name: str) -> tuple[str, str]:
    """The repository and the revision of a name of the hub. Raises UsageError."""
    match = re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise UsageError(
            f"{name!r} names no repository; write hf-hub:USER/REPO, or hf-hub:USER/REPO@REVISION"
        )
    return match[1], match[2] or "main"


def hub_file(repository: str, revision: str, filename: str) -> Path | None:
    """The path of a file of a repository in the hub's own cache, downloaded first if it is not there; None if
    the repository has no such file.

    Raises ModelError, with what to do, if it cannot be had.
    """

    def fetched() -> Facts:
        return {"path": _fetched(repository, revision, filename)}

    def there(facts: Facts) -> Path:
        path = Path(facts["path"])
        path.stat()
        return path

    # Its client is slow to import, and asks the hub each time.
    where = (os.environ.get(name, "") for name in ("HF_ENDPOINT", "HF_HOME"))
    try:
        return remembered(("hub", *where, repository, revision, filename), fetched, there)
    except _AbsentError:  # which is not remembered: it may come
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
    way_out = f"put its files in a folder, and name that local-dir:FOLDER (here {filename} is missing)"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name}: is not here, and HF_HUB_OFFLINE forbids to ask the hub; {way_out}")
    if unreachable := _unreachable(constants.ENDPOINT):
        raise ModelError(f"{name}: is not here, and the hub cannot be reached ({unreachable}); {way_out}")
    try:
        return get(here=False)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(f"{name}: the hub has no such repository, or shows it to its owner only") from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(f"{name}: the hub does not answer ({first_line(error)}); {way_out}") from error
    except errors.EntryNotFoundError as error:
        raise _AbsentError from error
    except Exception as error:  # its errors, of many libraries, share no parent
        raise ModelError(f"{name}: {filename} cannot be fetched ({first_line(error)}); {way_out}") from error


def _unreachable(endpoint: str) -> str:
    """Why the hub cannot be reached; empty if it can, as far as that shows: a proxy is trusted."""
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
    """The files of a repository: name -> path, or None, as `hub_file` gives them."""
    return lambda filename: hub_file(repository, revision, filename)
