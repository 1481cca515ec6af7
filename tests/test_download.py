"""Weights are fetched whole and checked, or not at all. The server is this machine's own."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from fcnconv.errors import ModelError
from fcnconv.models.download import _SafeRedirects, fetch, hub_folder
from fcnconv.models.weight_files import file_sha256

CONTENT = b"weights" * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class _Server(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if "missing" in self.path:
            self.send_error(404)
            return
        if "elsewhere" in self.path:
            host = "localhost" if "other" in self.path else "[x" if "nowhere" in self.path else "127.0.0.1"
            self.send_response(302)
            self.send_header("Location", f"http://{host}:{self.server.server_address[1]}/{NAME}")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        sent = CONTENT[:3000] if "short" in self.path else CONTENT
        self.wfile.write(sent[::-1] if "altered" in self.path else sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Server.asked = 0
    with HTTPServer(("127.0.0.1", 0), _Server) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_a_file_is_read_once_for_its_digest(
    server: str, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        read.append(self)
        return real(self, mode, *args, **more)

    monkeypatch.setattr(Path, "open", opened)
    path = fetch(f"{server}/{NAME}")  # its digest is that of what came
    assert file_sha256(path) == hashlib.sha256(CONTENT).hexdigest()
    assert fetch(f"{server}/{NAME}") == path and path not in read
    other = tmp_path / "other.pth"
    other.write_bytes(CONTENT)
    assert file_sha256(other) == file_sha256(other) and read.count(other) == 2  # written and read
    other.write_bytes(CONTENT[:-1] + b"!")
    os.utime(other, ns=(1, 1))
    assert file_sha256(other) == hashlib.sha256(CONTENT[:-1] + b"!").hexdigest()


def test_a_file_is_fetched_once(server: str, hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    assert fetch(f"{server}/{NAME}") == hub / NAME
    assert (hub / NAME).read_bytes() == CONTENT
    assert fetch(f"{server}/{NAME}") == hub / NAME
    assert _Server.asked == 1
    assert [file.name for file in hub.iterdir()] == [NAME]
    assert [record.message.split(" to ")[0] for record in caplog.records] == [f"downloading {NAME} (0 MB)"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("short", "the connection ended after 3,000 of 7,000 bytes"),
        ("altered", "its SHA-256 begins with"),
        ("missing", "Not Found"),
        ("nowhere/elsewhere", "Invalid IPv6 URL"),
    ],
)
def test_what_does_not_come_whole_leaves_nothing(server: str, hub: Path, folder: str, reason: str) -> None:
    with pytest.raises(
        ModelError, match=rf"{NAME}: .*{reason}.*get {server}/{folder}/{NAME} and put it in {hub}"
    ):
        fetch(f"{server}/{folder}/{NAME}")
    assert list(hub.iterdir()) == []


def test_a_redirect_to_another_host_without_tls_is_not_followed(server: str, hub: Path) -> None:
    with pytest.raises(
        ModelError, match=rf"it leads to http://localhost:\d+/{NAME}, which is not safe: no TLS"
    ):
        fetch(f"{server}/other/elsewhere/{NAME}")
    assert list(hub.iterdir()) == [] and _Server.asked == 1
    assert fetch(f"{server}/same/elsewhere/{NAME}").read_bytes() == CONTENT  # the same host, as it was asked


@pytest.mark.parametrize(
    ("asked", "leads", "followed"),
    [
        ("https://a/x", "http://a/x", False),
        ("https://a/x", "http://b/x", False),
        ("https://a/x", "ftp://a/x", False),
        ("https://a/x", "https://b/x", True),
        ("http://a/x", "https://b/x", True),
        ("http://a/x", "http://a/y", True),
        ("http://a/x", "http://a:81/x", False),
        ("http://a/x", "ftp://a/x", False),
    ],
)
def test_tls_is_never_left(asked: str, leads: str, followed: bool) -> None:
    request = Request(asked)
    with nullcontext() if followed else pytest.raises(OSError, match="no TLS"):
        found = _SafeRedirects().redirect_request(request, BytesIO(), 302, "Found", {}, leads)
        assert found is not None and found.full_url == leads


def test_an_interrupted_download_leaves_nothing(
    server: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcnconv.models.download._copy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server}/{NAME}")
    assert list(hub.iterdir()) == []


def test_an_altered_file_on_disk_is_told(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT[1:])
    with pytest.raises(ModelError, match=r"altered weights: .* delete the file"):
        fetch(f"http://127.0.0.1:9/{NAME}")


def test_without_a_network_the_error_says_what_to_do(hub: Path) -> None:
    with pytest.raises(ModelError, match=rf"{NAME}: the weights are missing.*refused.*put it in {hub}"):
        fetch(f"http://127.0.0.1:9/{NAME}")


def test_the_folder_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    for name, value in (
        ("TORCH_HOME", None),
        ("XDG_CACHE_HOME", str(tmp_path / "xdg")),
        ("XDG_CACHE_HOME", None),
    ):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
        assert str(hub_folder()) == f"{torch.hub.get_dir()}/checkpoints"
