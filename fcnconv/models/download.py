"""Downloads published weights to the folder of torch.hub, and checks them before they appear there."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from fcnconv.errors import ModelError
from fcnconv.models.weight_files import file_sha256, know_sha256

log = logging.getLogger("fcnconv")

TIMEOUT_S = 30
"""Seconds without data after which a download stops."""

_CHUNK = 1 << 20
_SHA256_PREFIX = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def hub_folder() -> Path:
    """The folder where torch.hub keeps weights: below ``TORCH_HOME``, else ``XDG_CACHE_HOME``, else
    ``~/.cache``.

    For a user without a home, it is a path where nothing can be stored, as in `cache_path`.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")  # noqa: PTH118
    try:
        return Path(home).expanduser() / "hub" / "checkpoints"
    except RuntimeError:
        return Path(os.devnull, "torch")


def hub_path(url: str) -> Path:
    """The path in `hub_folder` for a URL. The file need not exist."""
    return hub_folder() / url.rsplit("/", 1)[-1]


def fetch(url: str) -> Path:
    """Returns the path of a URL's file in `hub_folder`, and downloads the file first if it is missing.

    A file name that contains a SHA-256 (``resnet18-f37072fd.pth``) is checked against it each time.

    Raises:
        ModelError: the file cannot be downloaded, or is altered. The message names the file and its folder.
    """
    path = hub_path(url)
    if not path.is_file():
        try:
            _download(url, path)
        except (
            OSError,
            http.client.HTTPException,
            ValueError,
        ) as error:  # includes a redirection without an address
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ModelError(
                f"{path.name}: the weights are missing and cannot be downloaded ({reason}); "
                f"get {url} and put it in {path.parent}"
            ) from error
    else:
        digest = file_sha256(path)
        if not _fits(path.name, digest):
            raise ModelError(
                f"{path}: altered weights: its SHA-256 begins with {digest[:8]}; delete the file, and "
                "fcnconv downloads it again"
            )
    return path


def _fits(name: str, sha256: str) -> bool:
    prefix = _SHA256_PREFIX.search(name)
    return prefix is None or sha256.startswith(prefix[1])


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only if nobody on the way can alter the data.

    The target must use TLS, or be the same host if the request did not use TLS either.
    """

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        to = urlsplit(newurl)
        if to.scheme != "https" and (req.type == "https" or (to.scheme, to.netloc) != (req.type, req.host)):
            fp.close()
            raise OSError(f"it leads to {newurl}, which is not safe: no TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Follows a redirect, and closes the response if the redirect has no address."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(url, timeout=TIMEOUT_S) as response:
        size = int(response.headers.get("Content-Length") or 0)
        log.info("downloading %s (%s) to %s", path.name, f"{size / 1e6:.0f} MB" if size else "?", path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                sha256 = _copy(response, file, size)
                if not _fits(path.name, sha256):
                    raise OSError(
                        f"the download is incomplete or altered: its SHA-256 begins with {sha256[:8]}"
                    )
                file.close()
                temporary.chmod(0o644)
                temporary.replace(path)
                know_sha256(path, sha256)
            except BaseException:
                file.close()
                temporary.unlink(missing_ok=True)
                raise


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copies everything, shows the progress on a terminal, and returns the SHA-256."""
    digest, done = hashlib.sha256(), 0
    shown = size > 0 and sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
    while chunk := source.read(_CHUNK):
        target.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if shown:
            print(f"\r{done / 1e6:7.0f} of {size / 1e6:.0f} MB", end="", file=sys.stderr, flush=True)
    if shown:
        print(file=sys.stderr)
    if size and done < size:
        raise OSError(f"the connection ended after {done:,} of {size:,} bytes")
    return digest.hexdigest()
