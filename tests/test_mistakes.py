"""Mistakes at the command line: each is one line that names what to type instead, which then works."""

import shlex
from pathlib import Path

import pytest
from conftest import SAMPLES, Command

from fcnconv.cli import flags_of_commands
from fcnconv.commands import COMMANDS
from fcnconv.console.mistakes import ELSEWHERE, unknown_command, unknown_option

COFFEE = SAMPLES / "coffee.png"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "heatmap a b",
            "heatmap maps one image, and 2 are named; for all of them: fcnconv batch a b --out maps",
        ),
        ("heatmap a b c d -o x.png", "4 are named; for all of them: fcnconv batch a b … --out maps -f png"),
        ("heatmap 'a b.jpg' map.png", ": fcnconv heatmap 'a b.jpg' --out map.png"),
        ("export resnet18 net.onnx", ": fcnconv export resnet18 --out net.onnx"),
        ("export resnet18", "name a file to write with --out: its suffix is the format, .onnx or .pt2"),
        ("classes big cat", "quote words that belong together: fcnconv classes 'big cat'"),
        ("prepare resnet18 resnet50", "prepare takes one model, and 2 are named; give a command for each"),
        ("classify --josn x", "classify has no option --josn; did you mean --json?"),
        ("classify --gpu x", "classify has no option --gpu; did you mean --device cuda?"),
        ("classify x --shard 1/2", "classify has no option --shard; it belongs to batch"),
        ("classify x -Z", "classify has no option -Z; 'fcnconv classify -h' lists what it has"),
        ("heatmap --stride", "option '--stride' requires an argument; "),
        ("clasify x", "unknown command 'clasify'; did you mean 'classify'? 'fcnconv -h' lists them all"),
        ("zzz", f"unknown command 'zzz'; known: {', '.join(COMMANDS)}"),
        ("photo.jpg", ": fcnconv classify photo.jpg, or fcnconv heatmap photo.jpg --out map.png"),
        (".", ". is no command; to map its images: fcnconv batch . --out maps"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_way_out(fcnconv: Command, typed: str, said: str) -> None:
    done = fcnconv(*shlex.split(typed))
    assert (done.returncode, done.stdout) == (2, b"")
    message = done.stderr.decode()
    assert message.startswith("fcnconv: ") and message.count("\n") == 1
    assert said in message


def test_a_photo_that_is_there_is_an_image_whatever_its_suffix(fcnconv: Command, tmp_path: Path) -> None:
    second = tmp_path / "second.png"
    second.write_bytes(COFFEE.read_bytes())
    done = fcnconv("heatmap", COFFEE, second)
    assert done.returncode == 2 and f"fcnconv batch {COFFEE} {second} --out maps" in done.stderr.decode()


def test_the_line_that_an_error_gives_works(
    fcnconv: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(COFFEE.read_bytes())
    for typed in (["heatmap", "photo.png", "map.png"], ["classify", "."]):
        line = fcnconv(*typed).stderr.decode().rsplit(": fcnconv ", 1)[1]
        done = fcnconv(*shlex.split(line))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "map.png").is_file() and (tmp_path / "maps/photo.png.npz").is_file()


def test_what_other_programs_call_an_option_leads_to_one_that_is_there() -> None:
    known = flags_of_commands()
    assert set(known) == set(COMMANDS)
    for theirs, ours in ELSEWHERE.items():
        assert not any(theirs in flags for flags in known.values())
        able = [name for name, flags in known.items() if ours.split()[0] in flags]
        assert able and str(unknown_option(able[0], theirs, known)).endswith(f"did you mean {ours}?")
    assert "did you mean" not in str(unknown_option("models", "--gpu", known))


def test_a_near_name_is_offered_and_a_far_one_is_not() -> None:
    assert "did you mean 'heatmap'?" in str(unknown_command("heatmaps", COMMANDS))
    assert "did you mean" not in str(unknown_command("quux", COMMANDS))
