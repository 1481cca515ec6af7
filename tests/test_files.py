"""Where results go: whole files, devices and pipes that stay what they are, and what is told beforehand."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import SAMPLES, Command
from patience import PATIENCE

from fcnconv.errors import OutputError, UsageError
from fcnconv.system.files import check_writable, refuse_overwriting, whole_folder, written

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root's own doing")


def write(out: Path | str, content: bytes = b"new") -> None:
    with written(str(out)) as path:
        path.write_bytes(content)


def read_in_a_thread(fifo: Path) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    return reader, found


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "map.npy"
    write(out)
    with pytest.raises(KeyboardInterrupt), written(str(out)) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert out.read_bytes() == b"new" and list(tmp_path.iterdir()) == [out]


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "link.npy").symlink_to("to/real.npy")
    write(tmp_path / "link.npy")
    assert (tmp_path / "link.npy").is_symlink() and (tmp_path / "to/real.npy").read_bytes() == b"new"


def test_a_fifo_gets_the_bytes_and_stays_a_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, found = read_in_a_thread(fifo)
    write(fifo)
    reader.join(PATIENCE)
    assert found == [b"new"] and fifo.is_fifo()


def device(path: Path, minor: int) -> Path:
    """A device like one of the machine's own, which a mistake would replace."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"no devices are made here: {error}")
    return path


@as_root
def test_a_device_stays_a_device(tmp_path: Path) -> None:
    null, full = device(tmp_path / "null", 3), device(tmp_path / "full", 7)
    write(null)
    with pytest.raises(OutputError, match=rf"^{full}: cannot be written: No space left on device$"):
        write(full)
    assert null.is_char_device() and full.is_char_device()


def test_export_writes_through_a_fifo(fcnconv: Command, small: list[str], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, found = read_in_a_thread(fifo)
    done = fcnconv("export", *small, "-o", fifo, "-f", "onnx")
    assert done.returncode == 0, done.stderr
    if not fifo.is_fifo():  # let the reader go
        pytest.fail("the FIFO was replaced")
    reader.join(PATIENCE)
    assert fifo.is_fifo() and b"class 6" in found[0]


@pytest.mark.parametrize("out", ["-", "/dev/stdout"])
def test_standard_output_gets_the_bytes(out: str) -> None:
    code = (
        "from fcnconv.system.stdout import guarded; from fcnconv.system.files import written\n"
        f"with guarded(), written({out!r}) as path: path.write_bytes(b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"new"


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.npy: cannot be written: No such file or directory$"):
        write(tmp_path / "missing" / "x.npy")
    with pytest.raises(BrokenPipeError), written(str(tmp_path / "x.npy")):
        raise BrokenPipeError


LONG = {"Chinese": "城" * 80 + ".npy", "French": "é" * 127, "longest": "x" * 255, "odd": "a" + "城" * 84}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_long_names_in_any_script_are_written(tmp_path: Path, name: str) -> None:
    seen = []
    with written(str(tmp_path / name)) as path:
        seen.append(path.name)
        path.write_bytes(b"new")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert len(seen[0].encode()) <= 143, "an encrypted home allows no more"


def test_a_temporary_name_has_no_control_characters(tmp_path: Path) -> None:
    """SQLite, and so GDAL, does not open such a path for a GeoPackage."""
    with written(str(tmp_path / "a\n\tb.gpkg")) as path:
        assert path.name.isprintable()
        path.write_bytes(b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a\n\tb.gpkg"]


def test_a_long_name_that_is_no_text_is_written(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"\xe9" * 250))
    assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [b"\xe9" * 250]


def refused(out: str | Path, folder: bool = False) -> str:
    with pytest.raises(UsageError) as error:
        check_writable(str(out), folder=folder)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{out}: ")
    return str(error.value)


def test_what_cannot_be_written_is_told_beforehand(tmp_path: Path) -> None:
    file, store = tmp_path / "photo.png", tmp_path / "photos"
    file.write_bytes(b"a photo")
    store.mkdir()
    (store / "a.jpg").write_bytes(b"a photo")
    (tmp_path / "lost.png").symlink_to("missing/x.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert f"the folder {tmp_path}/nofolder is missing" in refused(tmp_path / "nofolder/x.png")
    assert f"the folder {tmp_path}/missing is missing" in refused(tmp_path / "lost.png")
    assert f"the folder {file} is a file" in refused(file / "x.png")
    assert "a folder, not a file" in refused(store)
    assert "a folder, not a file" in refused(f"{tmp_path}/new/")
    assert "exists and is not a zarr store" in refused(store, folder=True)
    assert "exists and is not a zarr store" in refused(file, folder=True)
    assert "File name too long" in refused(tmp_path / ("城" * 86))
    assert "null" in refused(f"{tmp_path}/a\0b")
    assert "symbolic links" in refused(tmp_path / "loop.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.png", "lost.png", "photo.png", "photos"]


def test_what_can_be_written_passes_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("new.png")
    os.mkfifo(tmp_path / "fifo")
    for out in (
        "-",
        "/dev/null",
        "/dev/stdout",
        *(tmp_path / name for name in ("old.png", "link.png", "fifo")),
    ):
        check_writable(str(out))
    (tmp_path / "empty").mkdir()
    check_writable(str(tmp_path / "empty"), folder=True)
    check_writable(str(tmp_path / "new.zarr"), folder=True)
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 4


def test_what_is_not_permitted_is_told_beforehand(tmp_path: Path) -> None:
    """As another user: root may write everywhere."""
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "kept.png").touch(mode=0o444)
    code = (
        "import os, sys, fcnconv.system.files as files\n"
        "if os.geteuid() == 0: os.chmod('.', 0o777); os.setuid(65534)\n"
        "for name in ('closed/x.png', 'kept.png'):\n"
        "    try: files.check_writable(name)\n"
        "    except files.UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "closed/x.png: cannot be written: Permission denied",
        "kept.png: cannot be written: Permission denied",
    ], done.stderr


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"a photo")
    (tmp_path / "link.png").symlink_to("photo.png")
    (tmp_path / "hard.png").hardlink_to(photo)
    (tmp_path / "loose.png").symlink_to("later.png")
    same = [
        ("photo.png", "photo.png"),
        (str(photo), "./photo.png"),
        ("link.png", "photo.png"),
        ("photo.png", "link.png"),
        ("hard.png", "photo.png"),
        ("later.png", "loose.png"),
        ("nowhere/../later.png", str(tmp_path / "later.png")),
    ]
    for out, image in same:
        with pytest.raises(UsageError, match=f"^{out}: would replace its own input, {image};"):
            refuse_overwriting(out, ["other.png", image])
    refuse_overwriting("map.png", ["photo.png", "link.png", "later.png", "-", "a\0b"])
    refuse_overwriting("-", ["-", "photo.png"])
    refuse_overwriting("/dev/null", ["/dev/null"])
    with photo.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        refuse_overwriting("map.png", ["-"])
        with pytest.raises(UsageError, match=r"^link\.png: would replace its own input, standard input;"):
            refuse_overwriting("link.png", ["-"])


def test_folders_that_are_replaced_at_once_are_each_whole(tmp_path: Path) -> None:
    """Whoever comes last wins, and nobody fails."""
    out, failed, start = tmp_path / "map.zarr", [], threading.Barrier(4)

    def write_often(who: int) -> None:
        start.wait()
        try:
            for _ in range(40):
                with whole_folder(out) as folder:
                    folder.mkdir()
                    for name in ("zarr.json", "scores"):
                        (folder / name).write_text(str(who))
        except Exception as error:  # of any kind
            failed.append(error)

    writers = [threading.Thread(target=write_often, args=(who,)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == [] and [path.name for path in tmp_path.iterdir()] == ["map.zarr"]
    assert (out / "zarr.json").read_text() == (out / "scores").read_text()


def test_what_comes_to_the_place_of_a_store_meanwhile_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "map.zarr"
    with pytest.raises(OutputError, match="exists and is not a zarr store"), whole_folder(out) as folder:
        folder.mkdir()
        (folder / "zarr.json").touch()
        out.mkdir()
        (out / "precious").write_text("kept")
    assert (out / "precious").read_text() == "kept" and [path.name for path in tmp_path.iterdir()] == [
        "map.zarr"
    ]


def test_folders_appear_whole_too(tmp_path: Path) -> None:
    out = tmp_path / ("城" * 85)
    for _ in range(2):
        with written(str(out), folder=True) as path:
            path.mkdir()
            (path / "zarr.json").write_text("{}")
    assert list(tmp_path.iterdir()) == [out] and (out / "zarr.json").exists()
    with pytest.raises(OutputError, match="is not a zarr store"), whole_folder(SAMPLES):
        pass
