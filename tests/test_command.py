"""The command as its users meet it: real processes, the embedded network, the sample photos."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import assert_refused
from conftest import SAMPLES, Command
from patience import PATIENCE
from PIL import ExifTags, Image
from terminals import in_terminal

from fcnconv.images.reading import normalize
from fcnconv.models import models

COFFEE, CHELSEA, COLLAGE = SAMPLES / "coffee.png", SAMPLES / "chelsea.png", SAMPLES / "collage.jpg"


def read_lines(output: bytes) -> list[list[str]]:
    return [line.split("\t") for line in output.decode().splitlines()]


def test_coffee_is_espresso(fcnconv: Command) -> None:
    done = fcnconv("classify", COFFEE)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = read_lines(done.stdout)
    assert rows[0][:3] == [str(COFFEE), "1", "espresso"]
    assert float(rows[0][3]) == pytest.approx(0.994, abs=0.005)
    assert rows[0][4] == "100,50,450,400"
    assert [row[1] for row in rows] == ["1", "2", "3", "4", "5"]


def test_chelsea_is_a_cat_and_json_says_all(fcnconv: Command) -> None:
    done = fcnconv("classify", "--json", "--top-k", "3", CHELSEA)
    record = json.loads(done.stdout)
    assert {p["category"] for p in record["predictions"]} == {"Egyptian cat", "tabby", "tiger cat"}
    assert (record["path"], record["width"], record["height"]) == (str(CHELSEA), 451, 300)
    assert record["model"] == "efficientnet_lite0" and record["scales"] == [0.8533]
    best = record["predictions"][0]
    assert best["rank"] == 1 and best["wnid"] == "n02124075" and best["class_idx"] == 285
    assert len(best["box"]) == 4


def test_the_native_size_gives_the_classifiers_own_logits(fcnconv: Command, tmp_path: Path) -> None:
    with Image.open(COFFEE) as photo:
        photo.convert("RGB").crop((100, 50, 324, 274)).save(tmp_path / "crop.png")
    out = tmp_path / "map.npy"
    assert fcnconv("heatmap", tmp_path / "crop.png", "--values", "logits", "-o", out).returncode == 0
    spec = models()["efficientnet_lite0"]
    pixels = np.asarray(Image.open(tmp_path / "crop.png"))
    with torch.no_grad():
        expected = spec.build(spec.weights())(
            torch.from_numpy(normalize(pixels, spec.mean, spec.std))
        ).numpy()
    logits = np.load(out)
    assert logits.shape == (1, 1, 1000) and logits.dtype == np.float32
    assert np.abs(logits[0, 0] - expected[0]).max() <= 1e-4


@pytest.mark.parametrize(("side", "cells"), [(224, 1), (500, 9), (1024, 26)])
def test_the_map_has_one_cell_for_each_whole_window(fcnconv: Command, side: int, cells: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "PNG")
    done = fcnconv("heatmap", "--format", "npy", "-o", "-", stdin=buffer.getvalue())
    probabilities = np.load(io.BytesIO(done.stdout))
    assert probabilities.shape == (cells, cells, 1000)
    assert np.abs(probabilities.sum(-1) - 1).max() < 1e-5


def test_the_collages_espresso_lies_in_the_cups_picture(fcnconv: Command, tmp_path: Path) -> None:
    out = tmp_path / "map.npz"
    assert fcnconv("heatmap", COLLAGE, "-c", "espresso", "-c", "Egyptian cat", "-o", out).returncode == 0
    saved = np.load(out, allow_pickle=False)
    assert saved["categories"].tolist() == ["espresso", "Egyptian cat"]
    places = {"espresso": (980, 120, 1520, 480), "Egyptian cat": (0, 0, 900, 599)}
    for plane, (left, top, right, bottom) in enumerate(places.values()):
        scores = saved["scores"][:, :, plane]
        row, col = np.unravel_index(scores.argmax(), scores.shape)
        centre = np.array([col, row]) * saved["stride"] + saved["window"] / 2
        assert left < centre[0] < right and top < centre[1] < bottom


def test_npz_carries_what_a_reader_needs(fcnconv: Command, tmp_path: Path) -> None:
    out = tmp_path / "map.npz"
    assert fcnconv("heatmap", COFFEE, "--scales", "0.8", "-o", out).returncode == 0
    saved = np.load(out, allow_pickle=False)
    assert saved["scores"].shape == (4, 9, 1000) and saved["scores"].dtype == np.float32
    assert saved["categories"][967] == "espresso"
    assert saved["weights_sha256"] == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert (saved["window"], saved["stride"], saved["width"], saved["height"]) == (224, 32, 600, 400)
    assert (saved["scale"], saved["model"], saved["values"]) == (0.8, "efficientnet_lite0", "probabilities")


def test_json_lists_the_best_of_each_cell(fcnconv: Command) -> None:
    done = fcnconv("heatmap", COFFEE, "-f", "json", "-k", "2", "-o", "-")
    record = json.loads(done.stdout)
    assert len(record["cells"]) == record["rows"] * record["cols"] == 6 * 12
    best = max(record["cells"], key=lambda cell: cell["predictions"][0]["probability"])
    assert best["predictions"][0]["category"] == "espresso" and len(best["predictions"]) == 2
    assert best["box"][2] - best["box"][0] == 224


@pytest.mark.parametrize("name", ["png", "jpg", "webp"])
def test_a_picture_shows_the_photos_top_class_with_a_legend_below(
    fcnconv: Command, tmp_path: Path, name: str
) -> None:
    out = tmp_path / f"map.{name}"
    done = fcnconv("heatmap", COFFEE, "-o", out)
    assert done.returncode == 0
    assert b"showing espresso (0.99 for the whole image" in done.stderr
    with Image.open(out) as picture:
        assert picture.width == 640 and 430 < picture.height < 520
        record = json.loads(picture.getexif()[ExifTags.Base.ImageDescription])
    assert (record["window"], record["stride"], record["map"]) == (32, 32, "focused")
    assert record["preprocessing"].startswith("RGB, bicubic resize, (pixels / 255 - [0.498039, ")


def test_what_is_looked_at_is_scanned_at_all_sizes_and_says_so(fcnconv: Command, tmp_path: Path) -> None:
    with Image.open(COFFEE) as photo:
        photo.resize((320, 213)).save(tmp_path / "small.png")
    out = tmp_path / "map.png"
    done = fcnconv("heatmap", tmp_path / "small.png", "-o", out, "-c", "cup", "--no-legend")
    assert done.returncode == 0
    with Image.open(out) as picture:
        assert picture.size == (320, 213)
        record = json.loads(picture.getexif()[ExifTags.Base.ImageDescription])
    assert record["scales"] == "640x416,385x256" and "join" not in record  # focused maps are means
    assert (416 - 224) // 32 + 1 >= 7
    for name in ("map.npz", "all.npz"):
        scales = ["--scales", "auto"] if name == "all.npz" else []
        assert fcnconv("heatmap", COFFEE, "-o", tmp_path / name, *scales).returncode == 0
    with np.load(tmp_path / "map.npz") as own, np.load(tmp_path / "all.npz") as every:
        assert "join" not in own and own["scores"].shape == (6, 12, 1000)
        assert str(every["join"]) == "finest" and every["scores"].shape == (8, 15, 1000)


@pytest.mark.parametrize("classes", [("cup",), ("cup", "espresso", "dog"), tuple("0123456")])
def test_max_side_bounds_the_picture(fcnconv: Command, tmp_path: Path, classes: tuple[str, ...]) -> None:
    named = [word for name in (*classes, classes[0]) for word in ("-c", name)]
    done = fcnconv("heatmap", COFFEE, "-o", tmp_path / "map.png", *named, "--max-side", "500")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "map.png") as picture:
        assert 400 < max(picture.size) <= 500
    if classes == ("cup",):  # named twice, it is one panel
        assert picture.width < 1.6 * picture.height


def test_a_class_that_is_found_nowhere_is_told(fcnconv: Command, tmp_path: Path) -> None:
    done = fcnconv("heatmap", COFFEE, "-o", tmp_path / "map.png", "-c", "tench")
    assert done.returncode == 0
    assert b"tench: not found; the highest probability is 0.0" in done.stderr
    assert b"'fcnconv classify' lists what the image shows" in done.stderr


def test_a_photo_comes_through_a_pipe(tmp_path: Path) -> None:
    subprocess.run(
        f"cat '{CHELSEA}' | '{sys.executable}' -m fcnconv heatmap --out map.png",
        shell=True,
        check=True,
        cwd=tmp_path,
    )
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width == 640 and 430 < picture.height < 500  # enlarged from 451


def test_one_bad_image_does_not_stop_the_others(fcnconv: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    done = fcnconv("classify", "--json", "-k", "1", bad, COFFEE, tmp_path / "missing.jpg")
    assert done.returncode == 1
    first, second, third = [json.loads(line) for line in done.stdout.splitlines()]
    assert first == {"path": str(bad), "error": f"{bad}: not an image that Pillow can decode"}
    assert second["predictions"][0]["category"] == "espresso"
    assert "No such file" in third["error"]
    assert done.stderr.decode().splitlines() == [f"fcnconv: {first['error']}", f"fcnconv: {third['error']}"]


def test_a_failed_map_leaves_nothing(fcnconv: Command, tmp_path: Path) -> None:
    out = tmp_path / "map.npz"
    out.write_bytes(b"before")
    done = fcnconv("heatmap", tmp_path / "missing.jpg", "-o", out)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert out.read_bytes() == b"before" and list(tmp_path.iterdir()) == [out]


def test_a_small_image_is_enlarged_and_that_is_said(fcnconv: Command, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), "red").save(tmp_path / "small.png")
    done = fcnconv("classify", tmp_path / "small.png")
    assert done.returncode == 0
    assert (
        b"small.png: 90 \xc3\x97 60 is smaller than the model's window of 224 px; enlarged to" in done.stderr
    )
    assert fcnconv("classify", "-q", tmp_path / "small.png").stderr == b""


@pytest.mark.parametrize(("size", "times"), [((300, 20), 11), ((1, 1), 224), ((37, 90), 6), ((38, 38), None)])
def test_what_is_beyond_the_networks_knowledge_is_told_once(
    fcnconv: Command, size: tuple[int, int], times: int | None, tmp_path: Path
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "few.png")
    for command in (["classify"], ["heatmap", "--anchors", "0", "-o", tmp_path / "map.npz"]):
        done = fcnconv(*command, tmp_path / "few.png")
        assert done.returncode == 0
        said = f"few.png: {size[0]} × {size[1]} is enlarged {times} times to the model's window of 224 px"
        lines = [line for line in done.stderr.decode().splitlines() if "enlarged" in line]
        assert len(lines) == 1 and (said in lines[0]) == (times is not None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["heatmap", COFFEE], "--out"),
        (["heatmap", COFFEE, "-o", "map.xyz"], "'xyz' ... 'map.xyz' ... npy, npz, "),
        (["heatmap", COFFEE, "-o", "-"], "--format ... npy"),
        (
            ["heatmap", COFFEE, "-o", "x.npy", "--values", "odds"],
            "--values ... 'odds' ... 'probabilities', 'logits'",
        ),
        (
            ["heatmap", COFFEE, "-o", "x.png", "-c", "espreso"],
            "'espreso' ... 'espresso'",
        ),
        (["heatmap", COFFEE, "-o", "x.png", "-c", "1000"], "1000"),
        (["classify", COFFEE, "--scales", "big"], "'big'"),
        (["classify", COFFEE, "-m", "efficientnet-lite9"], "'efficientnet-lite9' ... 'efficientnet_lite0'"),
        (
            ["classify", COFFEE, "--mode", "magic"],
            "--mode ... 'magic' ... 'fcn', 'windows'",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    fcnconv: Command, arguments: list[str | Path], said: str, tmp_path: Path
) -> None:
    assert_refused(fcnconv(*arguments), said)


def test_verify_with_nothing_to_compare_on_is_no_traceback(fcnconv: Command) -> None:
    done = fcnconv("verify", "efficientnet_lite0", "missing.png")
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    first, second = (line for line in lines if not re.search("Preparing|prepared in", line))
    assert first.startswith("fcnconv: missing.png: ") and second.startswith("fcnconv: ")


def test_a_transformer_is_refused_by_verify_before_a_download(fcnconv: Command, tmp_path: Path) -> None:
    done = fcnconv("verify", "vit_b_16", TORCH_HOME=str(tmp_path))
    way_out = "classify, heatmap, locate and batch run the network with --mode windows"
    assert_refused(done, f"vit_b_16 ... {way_out}", status=1)


@pytest.mark.usefixtures("lite0")
def test_a_mistake_of_ours_is_one_line_too() -> None:
    code = (
        "import fcnconv.batch.workers, sys; from fcnconv.cli.app import main\n"
        "def broken(*a, **k): raise ZeroDivisionError('by us')\n"
        "fcnconv.batch.workers.classify_one = broken\n"
        f"sys.argv = ['fcnconv', 'classify', {str(COFFEE)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]  # a plan may be made before
    assert (
        told.startswith("fcnconv: ") and "ZeroDivisionError" in told and "by us" in told and "--debug" in told
    )


def test_debug_shows_the_traceback_and_only_debug(fcnconv: Command) -> None:
    assert b"Traceback" not in fcnconv("classify", "missing.jpg").stderr
    assert b"Traceback" in fcnconv("classify", "missing.jpg", "--debug").stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-m", "fcnconv", "classify", *[str(COFFEE)] * 3]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert b"espresso" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(PATIENCE) in (0, 141)


def test_a_full_disk_is_told(fcnconv: Command) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "fcnconv", "classify", str(COFFEE)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert b"standard output" in done.stderr and b"No space left on device" in done.stderr
    done = fcnconv("heatmap", COFFEE, "-f", "npy", "-o", "/dev/full")
    assert_refused(done, "/dev/full ... No space left on device", status=1)
    assert Path("/dev/full").is_char_device()


def on_a_terminal(arguments: list[str]) -> str:
    """What a command shows on a terminal of its own."""
    return in_terminal([sys.executable, "-m", "fcnconv", *arguments], stdout=True).terminal


def test_a_terminal_gets_a_table() -> None:
    shown = on_a_terminal(["classify", str(COFFEE)])
    assert "espresso" in shown and "█" in shown and "100,50,450,400" in shown and "\t" not in shown


def test_a_terminal_gets_no_binary_data_and_no_image_is_awaited_from_it() -> None:
    assert "will not be written to a terminal" in on_a_terminal(
        ["heatmap", str(COFFEE), "-f", "npy", "-o", "-"]
    )
    assert "no image given" in on_a_terminal(["classify"])


def test_names_that_would_break_a_table_do_not(fcnconv: Command, tmp_path: Path) -> None:
    names = ["[red].png", "a b.png", "new\nline.png", "tab\t.png", "-dash.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        (tmp_path / name).write_bytes(COFFEE.read_bytes())
    run = subprocess.run(
        [sys.executable, "-m", "fcnconv", "classify", "-k", "1", "--", *names],
        cwd=tmp_path,
        capture_output=True,
    )
    rows = [line.split(b"\t") for line in run.stdout.splitlines()]
    assert [os.fsdecode(row[0]) for row in rows] == [
        name.replace("\n", "\\n").replace("\t", "\\t") for name in names
    ]
    run = subprocess.run(
        [sys.executable, "-m", "fcnconv", "classify", "--json", "--", *names],
        cwd=tmp_path,
        capture_output=True,
    )
    assert [json.loads(line)["path"] for line in run.stdout.splitlines()] == names
