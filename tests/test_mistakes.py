"""Mistakes at the command line: each is one line that names what to type instead, which then works."""

import shlex
from pathlib import Path

import pytest
from commands import assert_refused
from conftest import SAMPLES, Command

from fcnconv.cli import COMMANDS
from fcnconv.cli.app import flags_of_commands
from fcnconv.cli.mistakes import ELSEWHERE, unknown_command, unknown_option

COFFEE = SAMPLES / "coffee.png"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "heatmap a b",
            "2 ... fcnconv batch a b --out maps",
        ),
        ("heatmap a b c d -o x.png", "4 ... fcnconv batch a b … --out maps -f png"),
        ("heatmap 'a b.jpg' map.png", "fcnconv heatmap 'a b.jpg' --out map.png"),
        ("export resnet18 net.onnx", "fcnconv export resnet18 --out net.onnx"),
        ("export resnet18", "--out ... .onnx ... .pt2"),
        ("classes big cat", "fcnconv classes 'big cat'"),
        ("prepare resnet18 resnet50", "one model ... 2"),
        ("classify --josn x", "--josn ... --json"),
        ("classify --gpu x", "--gpu ... --device cuda"),
        ("classify x --shard 1/2", "--shard ... batch"),
        ("classify x -Z", "-Z ... fcnconv classify -h"),
        ("heatmap --stride", "--stride"),
        ("clasify x", "'clasify' ... 'classify' ... fcnconv -h"),
        ("zzz", f"'zzz' ... {', '.join(COMMANDS)}"),
        ("photo.jpg", "fcnconv classify photo.jpg ... fcnconv heatmap photo.jpg --out map.png"),
        (".", "fcnconv batch . --out maps"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_way_out(fcnconv: Command, typed: str, said: str) -> None:
    assert_refused(fcnconv(*shlex.split(typed)), said)


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
