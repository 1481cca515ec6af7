"""Options: each means something where it is given, or is refused in one line; none is silently ignored."""

import inspect
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from commands import assert_refused
from conftest import SAMPLES, Command
from hypothesis import given
from hypothesis import strategies as st
from terminals import in_terminal

import fcnconv
from fcnconv.api.classifier import Classifier
from fcnconv.backends import BACKENDS
from fcnconv.errors import UsageError
from fcnconv.grid import Scale
from fcnconv.models.own import OwnModel
from fcnconv.options import (
    PLAIN_OUTPUT,
    Backend,
    ClassifyOptions,
    NetworkOptions,
    OutputOptions,
    ReadOptions,
    ScanOptions,
    option_info,
)
from fcnconv.options.parsing import Area, parse_memory, parse_scales, parse_shard
from fcnconv.writers import OF_REGIONS, WRITERS, check_terminal, find_writer

COFFEE = SAMPLES / "coffee.png"

GIVEN = {
    "values": "logits",
    "top_k": 3,
    "at_least": 0.25,
    "store": "all",
    "argmax": True,
    "cells": True,
    "no_legend": True,
    "max_side": 640,
    "projected": True,
    "dtype": "uint8",
    "plain": True,
    "colormap": "viridis",
    "stretch": True,
    "top": 2,
    "raw": True,
    "outline": True,
    "footer": True,
    "threshold": 0.5,
    "min_area": Area(9.0),
    "max_regions": 2,
}
"""An unusual value of each option that changes what is written, but not how the image is scanned."""


def test_every_option_of_output_is_here() -> None:
    assert {field.name for field in fields(OutputOptions)} == {"classes", *GIVEN}
    assert not {*option_info(ScanOptions)} & {*option_info(OutputOptions)}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("suffix", WRITERS)
def test_an_option_applies_to_a_format_or_is_refused(suffix: str, name: str) -> None:
    if needs := WRITERS[suffix].needs:
        pytest.importorskip(needs[0])  # zarr has no version for Python 3.10
    winners = name == "at_least" and "argmax" in WRITERS[suffix].takes  # what it is for in a picture
    grey = name == "dtype" and "plain" in WRITERS[suffix].takes
    outlined = name in OF_REGIONS[1:] and "outline" in WRITERS[suffix].takes
    others = {"argmax": winners, "plain": grey, "outline": outlined}
    options = replace(PLAIN_OUTPUT, **(others | {name: GIVEN[name]}))
    if name in WRITERS[suffix].takes:
        assert find_writer(f"map.{suffix}", None, options) is WRITERS[suffix]
    else:
        flag = "-" + name.replace("_", "-")
        with pytest.raises(
            UsageError, match=rf"{flag}.* changes nothing in a \.{suffix}; it applies to \.\w+"
        ):
            find_writer(f"map.{suffix}", None, options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-o", "map.npy", "--argmax"],
            "--argmax ... .npy ... .png, .jpg",
        ),
        (["-o", "map.npz", "--cells"], "--cells ... .npz ... .png, .jpg"),
        (
            ["-o", "map.png", "-k", "3"],
            "--top-k 3 ... .png ... .npz, .json",
        ),
        (
            ["-o", "map.csv", "--at-least", "0.3"],
            "--at-least 0.3 ... .csv ... .geoj",
        ),
        (
            ["-o", "map.json", "--max-side", "99"],
            "--max-side 99 ... .json ... .png",
        ),
        (["-o", "map.json", "-c", "cup", "-k", "3"], "--top-k ... --class"),
        (["-o", "map.json", "--join", "mean"], "--join mean ... --scales"),
        (
            ["-o", "map.json", "--anchors", "0", "--seed", "3"],
            "--seed",
        ),
    ],
)
def test_what_changes_nothing_is_refused_in_one_line(
    fcnconv: Command, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fcnconv("heatmap", COFFEE, *arguments)
    assert_refused(done, said)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_takes_what_it_shows() -> None:
    check_terminal(OutputOptions(argmax=True, top_k=2))
    with pytest.raises(UsageError, match="--cells changes nothing in what a terminal shows"):
        check_terminal(OutputOptions(cells=True))


def test_at_least_needs_the_question_that_it_answers(fcnconv: Command) -> None:
    done = fcnconv("classify", COFFEE, "--at-least", "0.5")
    assert_refused(done, "--at-least ... --level concept")
    assert ClassifyOptions(level="concept").threshold() == 0.8
    assert ClassifyOptions(level="concept", at_least=0.5).threshold() == 0.5
    assert ClassifyOptions().threshold() is None
    with pytest.raises(UsageError, match="--level concept gives one answer; leave out --top-k"):
        ClassifyOptions(level="concept", top_k=3).threshold()


def test_a_temperature_needs_the_map_that_it_is_for(fcnconv: Command) -> None:
    done = fcnconv("heatmap", COFFEE, "-o", "-", "-f", "npy", "--temperature", "0.6", "--anchors", "4")
    assert_refused(done, "--temperature ... --anchors 0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "windows", "--anchors", "0"], "--mode windows"),
        (["--anchors", "1", "--refine", "0.2"], "leave out ... --refine"),
        (["--mode", "windows", "--agreement", "0.9"], "leave out ... --agreement"),
        (["--anchors", "0", "--agreement", "0.9"], "--agreement ... anchors"),
    ],
)
def test_a_correction_that_cannot_be_is_refused(
    fcnconv: Command, arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = fcnconv("heatmap", COFFEE, "-o", tmp_path / "map.npy", *arguments)
    assert_refused(done, said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["heatmap", "batch", "classify", "verify"])
def test_scales_are_read_before_anything_is_opened(fcnconv: Command, command: str, tmp_path: Path) -> None:
    first = ["efficientnet_lite0"] if command == "verify" else []
    out = ["-o", tmp_path / "maps.npy"] if command in ("heatmap", "batch") else []
    done = fcnconv(command, *first, "missing.png", *out, "--scales", "abc")
    assert_refused(done, "'abc'")


def test_a_photo_is_not_replaced_by_its_map(fcnconv: Command, tmp_path: Path) -> None:
    photo, link = tmp_path / "photo.png", tmp_path / "link.png"
    photo.write_bytes(COFFEE.read_bytes())
    link.symlink_to(photo)
    for image, out in ((photo, photo), (photo, link), (link, photo)):
        done = fcnconv("heatmap", image, "-o", out)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        assert b"would replace its own input" in done.stderr
    with photo.open("rb") as file:  # fcnconv heatmap -o photo.png < photo.png
        command = [sys.executable, "-m", "fcnconv", "heatmap", "-o", str(photo)]
        done = subprocess.run(command, stdin=file, capture_output=True)
    assert done.returncode == 2 and b"would replace its own input, standard input" in done.stderr
    assert photo.read_bytes() == COFFEE.read_bytes()


def test_neither_weights_nor_their_description_are_replaced(fcnconv: Command, tmp_path: Path) -> None:
    texts = {"w.pth": "{}", "names.json": '["a"]', "spec.json": "{}"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    given = [
        "-m",
        tmp_path / "w.pth",
        "--categories",
        tmp_path / "names.json",
        "--spec",
        tmp_path / "spec.json",
    ]
    for name, text in texts.items():
        done = fcnconv("heatmap", COFFEE, *given, "-f", "json", "-o", tmp_path / name)
        assert done.returncode == 2 and b"would replace its own input" in done.stderr
        assert (tmp_path / name).read_text() == text


def test_there_is_one_list_of_backends() -> None:
    assert set(get_args(Backend)) == {"auto", *BACKENDS}


@pytest.mark.parametrize("command", ["heatmap", "export"])
def test_an_output_that_cannot_be_is_told_before_anything_is_computed(
    fcnconv: Command, command: str, tmp_path: Path
) -> None:
    suffix, what = (".png", COFFEE) if command == "heatmap" else (".onnx", "no_such_model")
    done = fcnconv(command, what, "-o", tmp_path / "nofolder" / f"x{suffix}")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"nofolder is missing; make it first" in done.stderr
    (tmp_path / f"folder{suffix}").mkdir()
    done = fcnconv(command, what, "-o", tmp_path / f"folder{suffix}")
    assert done.returncode == 2 and b"a folder, not a file" in done.stderr


def test_load_takes_what_the_options_are() -> None:
    taken = set(inspect.signature(fcnconv.load).parameters)
    asked = {*option_info(NetworkOptions), *option_info(ReadOptions), *option_info(OwnModel)}
    assert taken == {"model"} | asked
    with pytest.raises(UsageError, match="unknown mode 'magic'; known: fcn, windows"):
        fcnconv.load(mode="magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown join 'sum'; known: finest, max, mean"):
        fcnconv.load()(COFFEE, join="sum")  # type: ignore[arg-type]


@given(
    st.one_of(
        st.just(Scale()),
        st.just(Scale(factor=1, pyramid=True)),
        st.integers(1, 4096).map(lambda side: Scale(short_side=side)),
        st.integers(1, 640).map(lambda n: Scale(factor=n / 10)),
    )
)
def test_a_scale_reads_as_it_is_written(scale: Scale) -> None:
    assert parse_scales(str(scale)) == (scale,)


def test_text_is_read_once_and_values_pass() -> None:
    assert parse_memory("1.5g") == 1.5e9 and parse_memory("2GiB") == 2 * 1024**3
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("9/8", "0/8", "1", "a/b"):
        with pytest.raises(UsageError, match="unknown shard"):
            parse_shard(wrong)


def test_help_comes_in_groups_with_what_most_need_first(fcnconv: Command) -> None:
    shown = fcnconv("heatmap", "--help-all").stdout.decode()
    groups = "Arguments", "Options", "Map", "Region of interest", "Picture", "Network"
    places = [shown.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places)
    assert shown.index("--out") < shown.index("--scales") < shown.index("--debug")
    words = " ".join(shown.split())
    assert "[default: 1; auto in display formats]" in words and "finest, max or mean" in words


def test_the_winners_are_drawn_on_a_terminal_too(lite0: Classifier) -> None:
    command = ["fcnconv", "heatmap", SAMPLES / "collage.jpg", "--argmax", "--scales", "0.5", "-k", "2"]
    shown = in_terminal(command, stdout=True)
    assert shown.status == 0
    heading = next(line for line in shown.terminal.splitlines() if "photo" in line)
    assert "most probable class of each window" in heading
    assert "██" in shown.terminal and "espresso" in shown.terminal, "no key of the colours"


def test_the_map_chooses_the_class_that_it_shows(fcnconv: Command, tmp_path: Path, lite0: Classifier) -> None:
    collage = SAMPLES / "collage.jpg"
    done = fcnconv("heatmap", collage, "-o", tmp_path / "map.png")
    assert done.returncode == 0
    answer = lite0.classify(collage).predictions[0]
    highest = lite0(collage, scales="auto", map="focused").class_map(answer.category).max()
    said = [line for line in done.stderr.decode().splitlines() if "showing" in line]
    sure = f"{answer.probability:.2f} for the whole image; up to {highest:.2f} in a cell"
    assert said == [f"fcnconv: showing {answer.category} ({sure}); choose with --class"]


def test_python_shows_short_lines_and_saves(lite0: Classifier, tmp_path: Path) -> None:
    score_map = lite0(COFFEE)
    assert repr(lite0) == (
        "<Classifier efficientnet_lite0: 1000 classes, window 224 px, stride 32 px, fcn mode>"
    )
    assert repr(score_map) == (
        "<ScoreMap 6 × 12 windows × 1000 classes of 600 × 400 px by efficientnet_lite0; espresso 0.97>"
    )
    score_map.save(tmp_path / "map.png", classes=["espresso", "cup"])
    score_map.save(tmp_path / "best.png")
    score_map.save(tmp_path / "map.npy", options=OutputOptions(values="logits"))
    assert (np.load(tmp_path / "map.npy") == score_map.logits).all()
    assert np.array_equal(
        score_map.class_map("espresso"), score_map.class_maps([lite0.labels.find("espresso")])[:, :, 0]
    )
    with pytest.raises(fcnconv.UsageError, match="unknown class 'espreso'"):
        score_map.save(tmp_path / "none.png", classes=["espreso"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.png", "map.npy", "map.png"]
