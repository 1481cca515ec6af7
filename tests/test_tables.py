"""Answers of many images in few files: tables against `classify` and lists of cells, archives against
folders.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Command

from fcnconv.batch import packed

pq = pytest.importorskip("pyarrow.parquet")

PLAIN = ("--anchors", "0", "--scales", "0.5")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee.png", "chelsea.png", "rocket.jpg"):
        shutil.copy(SAMPLES / name, folder)
    return folder


def rows(*files: Path | str) -> list[dict[str, Any]]:
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_a_table_of_images_has_the_answers_of_classify(fcnconv: Command, photos: Path) -> None:
    (photos / "text.jpg").write_text("no image")
    done = fcnconv("batch", "photos", "-o", "answers", "-f", "parquet", "-k", "3")
    assert done.returncode == 1 and done.stdout.decode().splitlines() == 3 * [
        "answers/answers-1-of-1-00000.parquet"
    ]
    expected = []
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        found = json.loads(fcnconv("classify", f"photos/{name}", "--json", "-k", "3").stdout)
        for one in found["predictions"]:
            box = dict(zip(("x0", "y0", "x1", "y1"), one.pop("box"), strict=True))
            expected.append({key: found[key] for key in ("path", "width", "height", "model")} | one | box)
    table = rows("answers/answers-1-of-1-00000.parquet")
    for row in table:
        row["probability"] = round(row["probability"], 6)
    assert [set(row) for row in table] == [set(row) for row in expected]
    for row, told in zip(table, expected, strict=True):
        assert row == told | {"probability": pytest.approx(told["probability"], abs=2e-6)}
    about = json.loads(pq.read_metadata("answers/answers-1-of-1-00000.parquet").metadata[b"fcnconv"])
    assert about["format"] == "parquet of images" and about["scales"] == "fit" and about["top_k"] == 3


def test_classify_writes_the_same_table(fcnconv: Command, photos: Path) -> None:
    (photos / "text.jpg").write_text("no image")
    done = fcnconv("classify", *sorted(photos.iterdir()), "-o", "some.parquet", "-k", "3")
    assert (done.returncode, done.stdout) == (1, b"")
    assert fcnconv("batch", photos, "-o", "answers", "-f", "parquet", "-k", "3").returncode == 1
    assert rows("some.parquet") == rows("answers/answers-1-of-1-00000.parquet")
    piped = fcnconv("classify", "photos/coffee.png", "-o", "-", "-k", "3")
    Path("piped.parquet").write_bytes(piped.stdout)
    assert [row | {"path": ""} for row in rows("piped.parquet")] == [
        row | {"path": ""} for row in rows("some.parquet") if "coffee" in row["path"]
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "x.csv"), "x.csv: classifications are written as .parquet only"),
        (("-o", "x.parquet", "--json"), "--out writes a table and prints nothing; leave out --json"),
        (("-o", "photos/coffee.png.parquet/x.parquet"), "cannot be written: the folder"),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_anything_is_done(
    fcnconv: Command, photos: Path, arguments: Any, told: str
) -> None:
    done = fcnconv("classify", "photos/coffee.png", *arguments)
    assert done.returncode == 2 and told in done.stderr.decode()


def test_a_table_of_cells_has_what_a_list_of_cells_has(fcnconv: Command, photos: Path) -> None:
    assert fcnconv("heatmap", "photos/coffee.png", "-o", "one.parquet", "-k", "2", *PLAIN).returncode == 0
    assert fcnconv("heatmap", "photos/coffee.png", "-o", "one.json", "-k", "2", *PLAIN).returncode == 0
    listed = json.loads(Path("one.json").read_text())
    table = iter(rows("one.parquet"))
    for cell in listed["cells"]:
        for rank, told in enumerate(cell["predictions"], 1):
            row = next(table)
            assert (row["row"], row["col"], row["exact"], row["rank"]) == (
                cell["row"],
                cell["col"],
                False,
                rank,
            )
            assert [row[side] for side in ("x0", "y0", "x1", "y1")] == cell["box"]
            assert (row["class_idx"], row["wnid"], row["category"]) == (
                *(told["class_idx"], told["wnid"]),
                told["category"],
            )
            assert row["probability"] == pytest.approx(told["probability"], abs=1e-6)
    assert next(table, None) is None
    about = json.loads(pq.read_metadata("one.parquet").metadata[b"fcnconv"])
    assert {"window", "stride", "weights_sha256"} <= set(about)
    many = fcnconv("batch", "photos", "-o", "cells", "-f", "parquet", "--cells-table", "-k", "2", *PLAIN)
    assert many.returncode == 0, many.stderr
    found = rows("cells/answers-1-of-1-00000.parquet")
    assert [row for row in found if row["path"] == "photos/coffee.png"] == rows("one.parquet")
    assert {row["path"] for row in found} == {f"photos/{path.name}" for path in photos.iterdir()}


def test_chosen_classes_are_the_ranks_of_a_table_of_cells(fcnconv: Command, photos: Path) -> None:
    options = ("-c", "dog", "-c", "espresso", *PLAIN)
    assert fcnconv("heatmap", "photos/coffee.png", "-o", "one.parquet", *options).returncode == 0
    assert [(row["rank"], row["category"], row["class_idx"]) for row in rows("one.parquet")[:2]] == [
        (1, "dog", None),
        (2, "espresso", 967),
    ]


def test_an_archive_has_the_files_of_a_folder(fcnconv: Command, photos: Path) -> None:
    assert fcnconv("batch", "photos", "-o", "folder", "-f", "npz", *PLAIN).returncode == 0
    assert fcnconv("batch", "photos", "-o", "packed", "-f", "npz.tar", *PLAIN).returncode == 0
    with tarfile.open("packed/maps-1-of-1-00000.tar") as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None and file.read() == Path("folder", member.name).read_bytes()
        assert sorted(archive.getnames()) == [
            f"photos/{name}.npz" for name in ("chelsea.png", "coffee.png", "rocket.jpg")
        ]


def test_a_name_that_is_no_utf_8_is_in_the_archive_and_its_list(fcnconv: Command, photos: Path) -> None:
    (photos / "rocket.jpg").rename(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.jpg"))
    run = ("batch", "photos", "-o", "packed", "-f", "json.tar", "-k", "1")
    assert fcnconv(*run).returncode == 0
    with tarfile.open("packed/maps-1-of-1-00000.tar") as archive:
        assert b"photos/caf\xe9.jpg.json" in map(os.fsencode, archive.getnames())
    again = fcnconv(*run, "--json")
    assert again.returncode == 0 and again.stdout.count(b'"new": false') == 3


@pytest.mark.parametrize(("suffix", "start"), [("parquet", "answers"), ("json.tar", "maps")])
def test_what_is_packed_is_not_made_again_and_what_is_new_gets_a_part_of_its_own(
    fcnconv: Command, photos: Path, suffix: str, start: str
) -> None:
    shutil.move("photos/rocket.jpg", "rocket.jpg")
    run = ("batch", "photos", "-o", "out", "-f", suffix, "-k", "1")
    assert fcnconv(*run).returncode == 0
    first = next(Path("out").glob(f"{start}-1-of-1-00000.*[rt]"))
    before = first.read_bytes()
    shutil.move("rocket.jpg", "photos/rocket.jpg")
    assert fcnconv(*run, "--missing").stdout == b"photos/rocket.jpg\n"
    done = fcnconv(*run, "--json")
    assert [(told["path"], told["new"]) for told in map(json.loads, done.stdout.splitlines())] == [
        ("photos/chelsea.png", False),
        ("photos/coffee.png", False),
        ("photos/rocket.jpg", True),
    ]
    assert first.read_bytes() == before and fcnconv(*run, "--missing").stdout == b""
    other = fcnconv("batch", "photos", "-o", "out", "-f", suffix, "-k", "2")
    assert other.returncode == 2 and b"made with top_k 1, not 2" in other.stderr
    assert fcnconv("batch", "photos", "-o", "out", "-f", suffix, "-k", "2", "--overwrite").returncode == 0
    parts = sorted(path.name for path in Path("out").glob(f"{start}-*[rt]"))
    assert len(parts) == 1  # what was made in another way is gone


def test_a_run_that_is_interrupted_keeps_what_it_has(photos: Path, lite0: Any) -> None:
    from fcnconv.batch.inputs import from_paths
    from fcnconv.batch.job import Job
    from fcnconv.batch.runs import BatchRun
    from fcnconv.models import OwnModel
    from fcnconv.options import NetworkOptions, OutputOptions, ReadOptions, ScanOptions

    options = NetworkOptions(), ReadOptions(), ScanOptions(), OutputOptions()
    job = Job("efficientnet_lite0", OwnModel(), *options, "out", "parquet", False, (1, 1))
    seen: list[Any] = []

    def watch(result: Any) -> None:
        seen.append(result)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(BatchRun(job.open(), watch=watch)(from_paths(sorted(map(str, photos.iterdir())))))
    assert len({row["path"] for row in rows(*Path("out").glob("*.parquet"))}) == 1
    names = [name for name, _ in BatchRun(job.open())(from_paths(sorted(map(str, photos.iterdir()))))]
    assert len(names) == 3 and len(rows(*Path("out").glob("*.parquet"))) == 15


def test_parts_are_bounded(photos: Path, lite0: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnconv.batch.inputs import from_paths
    from fcnconv.batch.job import Job
    from fcnconv.batch.runs import BatchRun
    from fcnconv.models import OwnModel
    from fcnconv.options import NetworkOptions, OutputOptions, ReadOptions, ScanOptions

    monkeypatch.setattr(packed, "IMAGES", 2)
    options = NetworkOptions(), ReadOptions(), ScanOptions(), OutputOptions()
    job = Job("efficientnet_lite0", OwnModel(), *options, "out", "parquet", False, (1, 1))
    run = BatchRun(job.open())
    paths = [path for _, made in run(from_paths(sorted(map(str, photos.iterdir())))) for path in [made.path]]
    assert paths == [f"out/answers-1-of-1-0000{i}.parquet" for i in (0, 0, 1)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("-f", "parquet", "--anchors", "2"),
            "--anchors changes nothing in a table of images; add --cells-table",
        ),
        (("-f", "parquet", "-c", "dog"), "--class changes nothing in a table of images"),
        (("-f", "json", "--cells-table"), "--cells-table is for --format parquet"),
        (("-f", "zarr.tar"), "a .zarr is a directory and cannot be packed in a tar archive"),
        (("-f", "exe.tar"), "unknown format 'exe'"),
        (("--workers", "2"), "--address and --workers need --engine ray"),
    ],
)
def test_what_changes_nothing_is_refused(fcnconv: Command, photos: Path, arguments: Any, told: str) -> None:
    done = fcnconv("batch", "photos", "-o", "out", *arguments)
    assert done.returncode == 2 and told in done.stderr.decode() and not Path("out").exists()
