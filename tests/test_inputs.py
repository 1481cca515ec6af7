"""Lists of paths and tar streams, as functions and as real pipes."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import SAMPLES, Command, needs_jq
from patience import PATIENCE

from fcnconv.batch.inputs import Input, from_list, from_paths, from_sources, from_tar
from fcnconv.errors import ImageError, UsageError

FCNCONV = f"'{sys.executable}' -m fcnconv"
NAMES = ["[red].png", "two words.png", "-dash.png", os.fsdecode(b"caf\xe9.png"), "new\nline.png"]


def sh(command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, timeout=PATIENCE)


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    for name in NAMES:
        shutil.copy(SAMPLES / "chelsea.png", tmp_path / name)
    return tmp_path


def test_lists_are_split_at_their_separator(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_bytes(b"a b\n\nc\xe9\nlast")
    assert [item.name for item in from_list(str(file), b"\n")] == ["a b", os.fsdecode(b"c\xe9"), "last"]
    file.write_bytes(b"new\nline\0x" * 20_000)
    assert len(list(from_list(str(file), b"\0"))) == 20_001
    assert list(from_paths(["-"])) == [Input("-", "-")]


@pytest.mark.parametrize(
    "content",
    [
        b"a.jpg\nb c.jpg\n",
        b"a.jpg\r\nb c.jpg\r\n",
        b"\xef\xbb\xbfa.jpg\n\n  \nb c.jpg",
        "a.jpg\r\nb c.jpg".encode("utf-16"),
        b"\xfe\xff" + "a.jpg\nb c.jpg\n".encode("utf-16-be"),
        b"\"a.jpg\"\n'b c.jpg'\n",
    ],
)
def test_lists_as_windows_and_people_write_them(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(content)
    assert [item.name for item in from_list(str(tmp_path / "list"), b"\n")] == ["a.jpg", "b c.jpg"]


def test_a_folder_ends_its_links_and_tells_what_it_passes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in/deep", "outside", "in/cells.zarr"):
        Path(folder).mkdir(parents=True)
    for name in ("in/a.png", "in/deep/b.png", "outside/c.png", "in/notes.txt", "in/readme"):
        Path(name).touch()
    Path("in/cells.zarr/zarr.json").write_text("{}")
    Path("in/deep/up").symlink_to("..")
    Path("in/link").symlink_to("../outside")
    Path("in/z.png").symlink_to("z.png")  # leads to itself
    os.mkfifo("in/pipe.png")
    with caplog.at_level("INFO", "fcnconv"):
        found = [item.name for item in from_sources(["in"], {".png"}, Path("maps"))]
    assert found == ["in/a.png", "in/z.png", "in/cells.zarr", "in/deep/b.png", "in/link/c.png"]
    assert "skipping 2 files" in caplog.text and ".txt 1" in caplog.text
    found = [item.name for item in from_sources(["in/**/*.png"], {".png"}, Path("maps"))]
    assert sorted(found) == ["in/a.png", "in/deep/b.png", "in/link/c.png"]


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    listing = os.scandir

    def refused(folder: str) -> object:
        if str(folder).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr("fcnconv.batch.inputs.os.scandir", refused)
    good, bad = from_sources([str(tmp_path)], {".png"}, Path("maps"))
    assert good.name.endswith("a.png") and bad.name.endswith("locked")
    with pytest.raises(ImageError, match="locked: the folder cannot be listed: Permission denied"):
        bad.content()


def test_a_tar_is_read_member_by_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(SAMPLES / "coffee.png", "deep/coffee.png")
        archive.addfile(tarfile.TarInfo("empty.png"))
    first, second = from_tar(str(tmp_path / "a.tgz"))
    assert first == Input("deep/coffee.png", (SAMPLES / "coffee.png").read_bytes())
    assert second == Input("empty.png", b"")


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive" * 99)
    with pytest.raises(ImageError, match="not a complete tar archive"):
        list(from_tar(str(tmp_path / "x.tar")))
    with pytest.raises(ImageError, match=r"missing\.tar: cannot be opened: No such file"):
        list(from_tar(str(tmp_path / "missing.tar")))


def test_the_images_in_archives_are_sources_and_a_broken_archive_is_one_failure(
    fcnconv: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shards").mkdir()
    shutil.copy(SAMPLES / "chelsea.png", "shards/z.png")
    Path("shards/broken.tar").write_bytes(b"no archive" * 99)
    with tarfile.open("shards/a.tar", "w") as archive:
        for name in ("000.png", "001.png"):
            archive.add(SAMPLES / "coffee.png", name)
            archive.addfile(tarfile.TarInfo(name.replace("png", "cls")))
    done = fcnconv("batch", "shards", "-o", "maps", "-f", "json", "-k", "1", "--anchors", "0", "--json")
    assert done.returncode == 1
    told = {line["path"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert set(told) == {"shards/a.tar/000.png", "shards/a.tar/001.png", "shards/broken.tar", "shards/z.png"}
    assert "not a complete tar archive" in told["shards/broken.tar"]["error"]
    fcnconv("batch", SAMPLES / "coffee.png", "-o", "one", "-f", "json", "-k", "1", "--anchors", "0")
    (one,) = Path("one").rglob("coffee.png.json")
    assert one.read_bytes() == Path("maps/shards/a.tar/000.png.json").read_bytes()
    with Path("shards/a.tar").open("r+b") as file:
        file.truncate(20_000)
    cut = fcnconv("batch", "shards/a.tar", "-o", "cut", "-f", "json", "--anchors", "0")
    assert cut.returncode == 1 and b"truncated: a file in it extends past its end" in cut.stderr


URL = "https://example.org/photos?page=1"


def test_a_url_is_no_pattern_and_is_called_by_what_is_no_secret() -> None:
    address = "https://user:word@example.org/photo.jpg?signature=1"
    shown = "https://example.org/photo.jpg"
    assert list(from_sources([address], {".png"}, Path("maps"))) == [Input(shown, address)]


def test_a_url_without_the_package_is_told_how_it_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.images.remote.find_spec", lambda _: None)
    for inputs in (from_list(URL, b"\n"), from_list(URL, b"\0"), from_tar(URL)):
        with pytest.raises(
            UsageError, match=r"^https://example.org/photos: reading https:// needs the extra remote"
        ):
            list(inputs)


def test_find_print0_with_odd_names(odd_names: Path) -> None:
    done = sh(f"find . -name '*.png' -print0 | {FCNCONV} classify --from0 - --json -k 1", odd_names)
    assert (done.returncode, done.stderr) == (0, b"")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(record["path"] for record in records) == sorted(f"./{name}" for name in NAMES)
    assert {record["predictions"][0]["category"] for record in records} == {"Egyptian cat"}


@needs_jq
def test_tar_stream_into_jq(odd_names: Path) -> None:
    (odd_names / "text.png").write_bytes(b"no image")
    classify = f"{FCNCONV} classify --tar - --json -k 1"
    command = f"tar c -- text.png two* | {classify} | jq -r '.error // .predictions[0].wnid'"
    done = sh(f"set -o pipefail; {command}", odd_names)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["text.png: not an image that Pillow can decode", "n02124075"]


def test_each_answer_is_there_before_the_next_question() -> None:
    command = [sys.executable, "-m", "fcnconv", "classify", "--files-from", "-", "-k", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for name in ("coffee.png", "camera.png"):
            process.stdin.write(os.fsencode(SAMPLES / name) + b"\n")
            process.stdin.flush()
            assert name.encode() in process.stdout.readline()  # would wait for ever if answers were held back
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_reader_that_leaves_ends_an_endless_list() -> None:
    done = sh(f"yes '{SAMPLES}/coffee.png' | {FCNCONV} classify --files-from - -k 1 | head -2", Path())
    assert done.stdout.count(b"espresso") == 2 and done.stderr == b""


def test_heatmap_through_a_pipe_into_numpy() -> None:
    code = "import sys, io, numpy; print(numpy.load(io.BytesIO(sys.stdin.buffer.read())).shape)"
    heatmap = f"{FCNCONV} heatmap -f npy -o - -c dog -c cup"
    done = sh(f"cat '{SAMPLES}/coffee.png' | {heatmap} | '{sys.executable}' -c '{code}'", Path())
    assert done.stdout == b"(6, 12, 2)\n"


def test_two_ways_to_name_images_are_one_too_many(fcnconv: Command) -> None:
    done = fcnconv("classify", "a.png", "--tar", "-", stdin=io.BytesIO().getvalue())
    assert done.returncode == 2 and b"name images in one way" in done.stderr
