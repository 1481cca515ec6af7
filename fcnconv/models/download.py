"""Fetching published weights into the folder that torch's own hub uses, whole and checked or not at all."""

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
from fcnconv.models.packaged import file_sha256, know_sha256

log = logging.getLogger("fcnconv")

TIMEOUT_S = 30
"""Seconds without a byte after which a download is given up."""

_CHUNK = 1 << 20
_SHA256_PREFIX = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def hub_folder() -> Path:
    """Where torch.hub keeps weights: below ``TORCH_HOME``, else ``XDG_CACHE_HOME``, else ``~/.cache``. Of a
    user without a home a place in which nothing can be kept, as of `cache_path`.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")  # noqa: PTH118
    try:
        return Path(home).expanduser() / "hub" / "checkpoints"
    except RuntimeError:
        return Path(os.devnull, "torch")


def hub_path(url: str) -> Path:
    """The place of a URL's file in `hub_folder`, whether or not it is there."""
    return hub_folder() / url.rsplit("/", 1)[-1]


def fetch(url: str) -> Path:
    """The path of a URL's file in `hub_folder`, downloaded first if it is not there.

    A file that is named after its SHA-256 (``resnet18-f37072fd.pth``) is checked against it each time.

    Raises ModelError, naming the file and the folder to put it in, if it cannot be had or is altered.
    """
    path = hub_path(url)
    if not path.is_file():
        try:
            _download(url, path)
        except (OSError, http.client.HTTPException, ValueError) as error:  # also a redirection to no address
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ModelError(
                f"{path.name}: the weights are not here, and cannot be downloaded ({reason}); "
                f"get {url} and put it in {path.parent}"
            ) from error
    else:
        found = file_sha256(path)
        if not _fits(path.name, found):
            raise ModelError(
                f"{path}: altered weights: its SHA-256 begins with {found[:8]}; delete the file, and it is "
                "downloaded again"
            )
    return path


def _fits(name: str, sha256: str) -> bool:
    prefix = _SHA256_PREFIX.search(name)
    return prefix is None or sha256.startswith(prefix[1])


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to another place only where nobody on the way can alter what comes: by TLS, or to the
    same host if it was not asked by TLS either.
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
        """Follows, and closes the answer where it leads to no address."""
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
                    raise OSError(f"what came has another SHA-256, {sha256[:8]}…, or is not whole")
                file.close()
                temporary.chmod(0o644)
                temporary.replace(path)
                know_sha256(path, sha256)
            except BaseException:
                file.close()
                temporary.unlink(missing_ok=True)
                raise


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> str:
    """Copies all, showing how far it is on a terminal. Returns the SHA-256."""
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
