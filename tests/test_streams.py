"""Maps written as they come: what is in the file, and what is left of a scan that was stopped."""

import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Command
from patience import PATIENCE
from PIL import Image
from tiny import choose

from fcnconv.api.classifier import Classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.api.maps import save_map as save
from fcnconv.batch.distributed import DistributedExecutor, Rows
from fcnconv.batch.inputs import Input
from fcnconv.images import MemorySource
from fcnconv.options import ScanOptions
from fcnconv.options.parsing import parse_scales
from fcnconv.scores import Block
from fcnconv.writers import WRITERS, OutputSpec


def test_a_failed_scan_leaves_nothing_that_looks_finished(lite0: Classifier, tmp_path: Path) -> None:
    def broken(blocks: Iterator[Block]) -> Iterator[Block]:
        yield next(blocks)
        assert list(tmp_path.iterdir()) != [], "nothing is written while the blocks come"
        assert not (tmp_path / "map.npy").exists()
        raise KeyboardInterrupt

    stream = lite0.stream(SAMPLES / "coffee.png")
    with pytest.raises(KeyboardInterrupt):
        save(
            replace(stream, blocks=broken(stream.blocks)),
            str(tmp_path / "map.npy"),
            WRITERS["npy"],
            OutputSpec(),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("map.npy", signal.SIGKILL),
        ("map.zarr", signal.SIGTERM),
        pytest.param("map.npy", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("map.npy", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("map.zarr", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("map.zarr", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_is_stopped_leaves_nothing_that_looks_finished(
    name: str, how: signal.Signals, tmp_path: Path
) -> None:
    image = tmp_path / "large.png"
    Image.new("RGB", (4096, 4096)).save(image)
    folder = tmp_path / "maps"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "fcnconv",
        "heatmap",
        image,
        "-o",
        folder / name,
        "--max-memory",
        "450MB",
    ]
    # a shell's job in the background, as these tests may be, has SIGINT ignored, and hands that on
    listening = partial(signal.signal, how, signal.SIG_DFL) if how != signal.SIGKILL else None
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, preexec_fn=listening) as process:
        while process.poll() is None and not any(folder.iterdir()):
            time.sleep(0.01)
        process.send_signal(how)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode in (-how, 128 + how), told
    left = [entry.name for entry in folder.iterdir()]
    if how == signal.SIGKILL:  # nobody can clean up after that: what is left has no name of its own
        assert all(entry.startswith(f".{name}.") and entry.endswith(".tmp") for entry in left)
    else:
        assert left == []
    assert b"Traceback" not in told


@pytest.mark.parametrize("suffix", ["json", "png", "tif", "html"])
def test_a_map_in_tiles_is_written_as_one_in_one_piece(
    lite0: Classifier, tmp_path: Path, suffix: str
) -> None:
    if WRITERS[suffix].needs:
        pytest.importorskip(WRITERS[suffix].needs[0])
    source = lite0.open(SAMPLES / "coffee.png")
    choice = choose(lite0.labels.find("espresso"))
    for name, memory in (("whole", lite0.memory), ("tiles", 360e6)):
        stream = replace(lite0, memory=memory).stream(source)
        save(stream, str(tmp_path / f"{name}.{suffix}"), WRITERS[suffix], choice)
    whole, tiles = (tmp_path / f"{name}.{suffix}" for name in ("whole", "tiles"))
    if suffix == "png":
        with Image.open(whole) as a, Image.open(tiles) as b:
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    elif suffix == "tif":
        import tifffile

        assert np.abs(tifffile.imread(whole) - tifffile.imread(tiles)).max() <= 1e-5
    else:  # the plans of both sizes may differ in the last of the digits that are written
        assert abs(whole.stat().st_size - tiles.stat().st_size) <= 0.01 * whole.stat().st_size


def test_joined_scales_are_written_with_the_boxes_of_the_best_scale(
    lite0: Classifier, tmp_path: Path
) -> None:
    source, path = lite0.open(SAMPLES / "collage.jpg"), tmp_path / "map.json"
    save(
        lite0.stream(source, ScanOptions(scales=parse_scales("1,0.5"))),
        str(path),
        WRITERS["json"],
        choose(top_k=1),
    )
    score_map = lite0(source, scales="1,0.5")
    cells = json.loads(path.read_text())["cells"]
    assert [tuple(cell["box"]) for cell in cells] == [score_map.box(c["row"], c["col"]) for c in cells]
    assert len({cell["box"][2] - cell["box"][0] for cell in cells}) > 1, "one scale wins everywhere"


def test_large_coarse_maps_are_joined_from_disk(lite0: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lite0.open(SAMPLES / "coffee.png")
    expected = lite0(source, scales="1,0.7")
    monkeypatch.setattr("fcnconv.system.scratch.IN_MEMORY", 0)
    assert np.array_equal(lite0(source, scales="1,0.7").logits, expected.logits)


def test_a_large_map_keeps_its_best_classes_where_a_format_can(
    lite0: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(suffix: str = "npz", **options: object) -> bool:
        path = tmp_path / f"map.{suffix}"
        save(lite0.stream(SAMPLES / "coffee.png"), str(path), WRITERS[suffix], choose(top_k=3, **options))
        return suffix == "npz" and "class_idx" in np.load(path).files

    assert not kept() and kept(store="top-k")
    monkeypatch.setattr("fcnconv.writers.arrays.LARGE_MAP", 1000)
    assert kept() and not kept(store="all") and not kept(values="logits") and not kept("npy")


@pytest.mark.parametrize(
    "arguments", [("-o", "map.npy"), ("-o", "map.npz", "-c", "cat"), ("-o", "map.npz", "--values", "logits")]
)
def test_a_store_that_cannot_be_is_refused(fcnconv: Command, arguments: tuple[str, ...]) -> None:
    done = fcnconv("heatmap", SAMPLES / "coffee.png", "--store", "top-k", *arguments)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("fcnconv: --store top-k")
    assert done.stderr.count(b"\n") == 1


def test_scores_over_4_gb_make_a_bigtiff(
    lite0: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr("fcnconv.writers.tiffs.LARGE_TIFF", 0)
    score_map, path = lite0(SAMPLES / "coffee.png"), tmp_path / "map.tif"
    save(score_map.stream(), str(path), WRITERS["tif"], choose(values="logits"))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and len(file.pages) == 1000
        assert np.array_equal(file.asarray(), score_map.logits.transpose(2, 0, 1))
        assert file.pages[0].tags["ModelPixelScaleTag"].value == (32, 32, 0)


@pytest.mark.parametrize(
    ("options", "memory"),
    [
        (ScanOptions(map="focused"), 2e9),
        pytest.param(ScanOptions(anchors=4, refine=0.1), 1.0, marks=pytest.mark.slow),
    ],
    ids=["class activations", "corrected, in stages"],
)
def test_what_many_workers_compute_is_the_map_of_one(
    lite0: Classifier, options: ScanOptions, memory: float
) -> None:
    """The workers' methods are called here, one after another, with arguments and results pickled."""
    with Image.open(SAMPLES / "collage.jpg") as photo:
        source = MemorySource(np.asarray(photo.resize((480, 320))))
    one = replace(lite0, memory=memory)
    worker = Rows(None, None)  # type: ignore[arg-type]
    worker.__dict__["folder"] = SimpleNamespace(share=one, open=lambda item: source)

    def each(what: str, calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for call in calls:
            sent = pickle.loads(pickle.dumps(call))
            yield pickle.loads(pickle.dumps(getattr(worker, what)(*sent)))

    many = replace(one, executor=DistributedExecutor(Input("image", b""), each, workers=3))
    expected, found = (ScoreMap.collect(each.stream(source, options)) for each in (one, many))
    assert np.array_equal(found.logits, expected.logits) and not np.isnan(found.logits).any()
    assert found.provenance == expected.provenance
