"""The terminal preview: half-blocks in the terminal's colours, letters where it has none."""

import io
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import SAMPLES
from rich.console import Console
from tiny import make_map

from fcnconv.cli.preview import _of_palette, draw_map
from fcnconv.cli.printing import print_classes
from fcnconv.grid import Grid
from fcnconv.labels import numbered

PHOTO = np.zeros((240, 320, 3), np.uint8)
PHOTO[:, 160:] = 255
LOGITS = np.zeros((6, 9, 2), np.float32)
LOGITS[:, 5:, 0] = 9  # class 0 on the right
SCORE_MAP = make_map(LOGITS, Grid(80, 30, (320, 240), (320, 240)), numbered(2))


def shown() -> str:
    file = io.StringIO()
    draw_map(Console(file=file, width=80, no_color=True), PHOTO, SCORE_MAP, [SCORE_MAP.labels.category(0)])
    return file.getvalue()


def test_letters_show_photo_and_map_side_by_side() -> None:
    text = shown()
    heading, *lines = text.rstrip("\n").splitlines()
    assert heading.split() == ["photo", "class", "0,", "up", "to", "1.00"]
    middle = lines[len(lines) // 2].ljust(80)
    photo, score_map = middle[:39], middle[41:]
    assert photo[:18].strip() == "" and photo[21:39].strip() == "@" * 18
    left, right = score_map[6:18], score_map[24:32]
    assert max(map(" .:-=+*#%@".index, left)) < min(map(" .:-=+*#%@".index, right))


def on_a_terminal(*arguments: str, **environment: str) -> str:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "fcnconv", *arguments]
    base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
    environment = base | {"COLUMNS": "90", "TERM": "xterm-256color"} | environment
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        seen = b""
        while True:
            try:
                seen += os.read(controller, 1 << 16)
            except OSError:  # the other end is closed
                break
        os.close(controller)
    assert process.returncode == 0, seen
    return seen.decode()


def test_heatmap_without_out_draws_on_the_terminal() -> None:
    text = on_a_terminal("heatmap", str(SAMPLES / "coffee.png"), "-c", "espresso")
    assert "▀" in text and "38;5;" in text and "38;2;" not in text  # 256 colours
    assert "espresso, up to 0.77" in text
    assert re.search(r"espresso +at \d+,\d+,\d+,\d+", text)


def test_what_is_found_nowhere_is_told_on_a_terminal_too() -> None:
    text = on_a_terminal("heatmap", str(SAMPLES / "coffee.png"), "-c", "tench")
    assert "tench: not found; the highest probability is 0.0" in text
    text = on_a_terminal("heatmap", str(SAMPLES / "coffee.png"), "--argmax", "--at-least", "0.99")
    assert "██" not in text and "no class reaches --at-least 0.99" in text


def test_no_color_is_respected() -> None:
    text = on_a_terminal("heatmap", str(SAMPLES / "coffee.png"), "-c", "espresso", NO_COLOR="1")
    assert "▀" not in text and "38;" not in text and "@" in text


def test_classify_adds_a_small_preview() -> None:
    text = on_a_terminal("classify", str(SAMPLES / "coffee.png"), "--preview", COLORTERM="truecolor")
    assert "38;2;" in text
    assert "100,50,450,400" in text and "▀" in text and "espresso, up to" in text


def test_256_colours_are_those_that_no_user_chooses_and_true_on_average() -> None:
    grey = np.linspace(0, 255, 64).astype(np.uint8)
    photo = np.stack([np.broadcast_to(grey, (48, 64)), np.full((48, 64), 90), np.full((48, 64), 40)], -1)
    colours = _of_palette(photo.astype(np.uint8))
    assert all(color.number is not None and color.number >= 16 for row in colours for color in row)
    drawn = np.array([[color.get_truecolor() for color in row] for row in colours], float)
    blocks = np.abs(drawn - photo).shape, (drawn - photo).reshape(6, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(blocks[1]).max() < 25  # the nearest colours alone are up to 47 away


def test_columns_are_aligned_and_no_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    names = "a name, " * 20
    print_classes([("×118", "n02084071", "dog"), ("7", "n01514668", names)], aligned=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "×118  n02084071  dog" and lines[1].startswith("   7  n01514668  a name, ")
    assert len(lines) > 3 and max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 17) for line in lines[2:])
    print_classes([("7", "n01514668", "cock")], aligned=False)
    assert capsys.readouterr().out == "7\tn01514668\tcock\n"
