"""Images and answers elsewhere, against servers on the loopback address: HTTP, and S3 as moto plays it."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import SAMPLES, Command

from fcnconv.batch.folders import answer_name
from fcnconv.images.remote import is_address, local_path, shown_address

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

QUICK = ("--scales", "256px", "--anchors", "0", "-f", "json", "-k", "1")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """The sample photos on a web server."""
    handler = functools.partial(Quiet, directory=str(SAMPLES))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an S3 with a bucket ``photos`` of two sample photos and a text."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "id-of-mine",
        "AWS_SECRET_ACCESS_KEY": "secret-of-mine",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(300):
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        s3(environment, "fs.mkdir('photos')")
        for name in ("coffee.png", "chelsea.png"):
            s3(environment, f"fs.put_file({str(SAMPLES / name)!r}, 'photos/in/{name}')")
        s3(environment, "fs.pipe_file('photos/in/text.png', b'no image')")
        yield environment
    finally:
        server.kill()
        server.wait()


def s3(environment: dict[str, str], code: str) -> str:
    """Runs a line about the file system ``fs`` in a process of its own; what it prints."""
    code = f"import s3fs\nfs = s3fs.S3FileSystem()\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_addresses_are_told_without_what_may_be_a_secret() -> None:
    for address, shown in {
        "https://user:word@host:8/a b.png?X-Amz-Signature=1#x": "https://host:8/a b.png",
        "s3://bucket/a.png": "s3://bucket/a.png",
        "a?b@c.png": "a?b@c.png",
        "HTTP://user:word@[x/a.png?b": "http://[x/a.png",  # none that a parser takes
        f"s3://{'a' * 5000}": f"s3://{'a' * 5000}",  # longer than the name of a file may be
    }.items():
        assert shown_address(address) == shown
    assert is_address("gs://a/b") and not is_address("file:///a/b") and not is_address("a:/b")
    assert local_path("file:///tmp/a%20b.png") == "/tmp/a b.png" and local_path("a%20b") == "a%20b"
    assert answer_name("s3://bucket/in/a.png", "npz") == "s3/bucket/in/a.png.npz"


def test_an_image_is_fetched(fcnconv: Command, site: str, tmp_path: Path) -> None:
    done = fcnconv("classify", f"{site}/coffee.png?token=hidden", f"{site}/none.png", "--json", "-k", "1")
    found, missing = map(json.loads, done.stdout.splitlines())
    (here,) = map(
        json.loads, fcnconv("classify", SAMPLES / "coffee.png", "--json", "-k", "1").stdout.splitlines()
    )
    assert found == here | {"path": f"{site}/coffee.png"}
    assert done.returncode == 1 and missing["error"] == f"{site}/none.png: not found"
    assert b"hidden" not in done.stdout + done.stderr
    assert fcnconv("heatmap", f"{site}/coffee.png", "-o", tmp_path / "a.npy").returncode == 0
    assert fcnconv("heatmap", SAMPLES / "coffee.png", "-o", tmp_path / "b.npy").returncode == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_a_list_elsewhere_of_images_elsewhere(fcnconv: Command, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "a.png").write_bytes((SAMPLES / "coffee.png").read_bytes())
        (tmp_path / "list").write_text(f"{site}/a.png\nfile://{tmp_path}/a.png\n")
        done = fcnconv("batch", "--files-from", f"{site}/list", "-o", "maps", *QUICK)
        server.shutdown()
    here = f"maps/http/127.0.0.1:{server.server_port}/a.png.json"
    assert done.stdout.decode().splitlines() == [here, f"maps{tmp_path}/a.png.json"], done.stderr
    assert Path(here).read_bytes() == Path(f"maps{tmp_path}/a.png.json").read_bytes()


def test_a_tiff_elsewhere_is_read_region_by_region_and_its_copy_goes(
    fcnconv: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile, numpy = pytest.importorskip("tifffile"), pytest.importorskip("numpy")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    pixels = numpy.random.default_rng(0).integers(0, 255, (512, 768, 3), numpy.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.tif"
        done = fcnconv("heatmap", address, "-o", tmp_path / "a.npy", "--anchors", "0", "--debug")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert fcnconv("heatmap", tmp_path / "a.tif", "-o", tmp_path / "b.npy", "--anchors", "0").returncode == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert not list((tmp_path / "temporary").iterdir())


def test_a_folder_of_a_bucket_to_a_folder_of_a_bucket(
    fcnconv: Command, bucket: dict[str, str], tmp_path: Path
) -> None:
    run = ("batch", "s3://photos/in", "-o", "s3://photos/maps", *QUICK)
    done = fcnconv(*run, **bucket)
    assert done.stdout.decode().splitlines() == [
        f"s3://photos/maps/s3/photos/in/{name}.json" for name in ("chelsea.png", "coffee.png")
    ], done.stderr
    assert done.returncode == 1 and b"text.png: not an image" in done.stderr
    failures = s3(bucket, "print(fs.cat_file('photos/maps/failures.jsonl').decode())")
    assert json.loads(failures)["path"] == "s3://photos/in/text.png"
    assert fcnconv("batch", SAMPLES / "coffee.png", "-o", tmp_path, *QUICK).returncode == 0
    made = s3(bucket, "print(fs.cat_file('photos/maps/s3/photos/in/coffee.png.json').decode(), end='')")
    (here,) = tmp_path.rglob("coffee.png.json")
    assert made == here.read_text()
    again = fcnconv(*run, "--json", **bucket)
    assert [json.loads(line).get("new") for line in again.stdout.splitlines()] == [False, False, None]
    missing = fcnconv(*run, "--missing", **bucket)
    assert missing.stdout == b"s3://photos/in/text.png\n"
    other = fcnconv(*run[:-2], "-k", "2", **bucket)
    assert (
        other.returncode == 2
        and b"contains maps made with top_k 1, not 2; name another folder\n" in other.stderr
    )
    assert b"of-mine" not in done.stdout + done.stderr + again.stderr + other.stderr
    s3(bucket, f"fs.put_file({str(SAMPLES / 'coffee.png')!r}, 'photos/in/text.png')")
    assert fcnconv(*run, "--retry-failed", **bucket).returncode == 0
    assert s3(bucket, "print(fs.cat_file('photos/maps/failures.jsonl'))") == "b''\n"
    s3(bucket, "fs.pipe_file('photos/in/text.png', b'no image')")


def test_what_a_bucket_cannot_hold_is_refused(fcnconv: Command, bucket: dict[str, str]) -> None:
    for suffix, word in (("html", b"page with a report"), ("zarr", b"directory")):
        done = fcnconv("batch", "s3://photos/in", "-o", "s3://photos/pages", "-f", suffix, **bucket)
        assert done.returncode == 2 and word in done.stderr


def test_tables_and_archives_in_a_bucket(fcnconv: Command, bucket: dict[str, str], tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for suffix, part in (("parquet", "answers-1-of-1-00000.parquet"), ("json.tar", "maps-1-of-1-00000.tar")):
        run = ("batch", "s3://photos/in/c*.png", "-o", f"s3://photos/{suffix}", "-f", suffix, "-k", "1")
        done = fcnconv(*run, **bucket)
        assert done.stdout.decode().splitlines() == 2 * [f"s3://photos/{suffix}/{part}"], done.stderr
        again = fcnconv(*run, "--json", **bucket)
        assert [json.loads(line)["new"] for line in again.stdout.splitlines()] == [False, False], again.stderr
        assert fcnconv(*run, "--missing", **bucket).stdout == b""
    part = "photos/parquet/answers-1-of-1-00000.parquet"
    s3(bucket, f"fs.get_file({part!r}, {str(tmp_path / 'part.parquet')!r})")
    paths = pq.read_table(tmp_path / "part.parquet")["path"].to_pylist()
    assert sorted(paths) == ["s3://photos/in/chelsea.png", "s3://photos/in/coffee.png"]


def test_a_place_that_cannot_be_reached_is_told_in_a_line(
    fcnconv: Command, bucket: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ("classify", "http://127.0.0.1:9/a.png"),
        ("batch", "s3://nothing/in", "-o", "maps"),
        ("batch", SAMPLES / "coffee.png", "-o", "s3://nothing/maps"),
        ("classify", "nonsense://a/b.png"),
    ):
        done = fcnconv(*arguments, **bucket)
        assert done.returncode in (1, 2) and done.stderr.startswith(b"fcnconv: "), done.stderr
        assert done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr, done.stderr
