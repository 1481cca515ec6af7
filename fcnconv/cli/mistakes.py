"""Messages for wrong commands and arguments: one line that says what to type instead."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from fcnconv.errors import UsageError

ELSEWHERE = {
    "--gpu": "--device cuda",
    "--labels": "--categories FILE",
    "--min-score": "--at-least P",
    "--resize": "--scales NNNpx",
    "--size": "--scales NNNpx",
    "--step": "--stride PX",
    "--verbose": "--debug",
    "--weights": "--model FILE",
}
"""Options that users may know from other programs, with fcnconv's options."""


def too_many_arguments(command: str, named: Sequence[str], out: str | None = None) -> UsageError:
    """Returns the error for too many arguments. A command takes one argument, and `doctor` takes none.

    Args:
        command: The name of the command.
        named: All arguments.
        out: The value of --out, if it is given.
    """
    if command == "doctor":
        return UsageError(f"doctor takes no arguments, but got {_line('doctor', *named).split(' ', 2)[2]}")
    first, last = named[0], named[-1]
    if out is None and len(named) == 2 and _is_output(command, last):
        return UsageError(f"{last}: to write to this file, use --out: {_line(command, first, '--out', last)}")
    if command == "heatmap":
        format = ["-f", suffix] if out and (suffix := Path(out).suffix[1:]) else []
        many = _line("batch", *named, "--out", "maps", *format)
        return UsageError(f"heatmap maps one image, and {len(named)} are named; to map all of them: {many}")
    if command in ("classes", "models"):
        whole = _line(command, " ".join(named))
        return UsageError(f"{command} takes one pattern; quote words that belong together: {whole}")
    return UsageError(f"{command} takes one model, and {len(named)} are named; run one command for each")


def _is_output(command: str, name: str) -> bool:
    """Returns whether an argument can only be meant as an output file."""
    from fcnconv.writers import WRITERS  # imports numpy: only after a mistake

    known = {"heatmap": WRITERS, "export": ("onnx", "pt2")}.get(command, ())
    return Path(name).suffix[1:].lower() in known and not Path(name).exists()


def _line(command: str, *words: str) -> str:
    """Returns the command to type, shortened if many words precede its first option."""
    named = next((i for i, word in enumerate(words) if word.startswith("-") and word != "-"), len(words))
    shown = [*map(shlex.quote, words[:named])]
    shown = shown if named <= 3 else [*shown[:2], "…"]
    return " ".join(["fcnconv", command, *shown, *map(shlex.quote, words[named:])])


def unknown_option(command: str, option: str, known: Mapping[str, Collection[str]]) -> UsageError:
    """Returns the error for an option that a command does not have. known: the flags of each command."""
    said = f"{command} has no option {option}"
    meant = ELSEWHERE.get(option)
    if meant is None or meant.split()[0] not in known[command]:
        meant = next(iter(get_close_matches(option, known[command], 1, 0.75)), None)
    if meant is not None:
        return UsageError(f"{said}; did you mean {meant}?")
    if able := [name for name, flags in known.items() if option in flags]:
        return UsageError(f"{said}; it belongs to {', '.join(able)}")
    return UsageError(f"{said}; 'fcnconv {command} -h' lists its options")


def unknown_command(name: str, known: Sequence[str]) -> UsageError:
    """Returns the error for a first word that is not a command. It may be an image whose command was
    forgotten.
    """
    if Path(name).is_dir():
        return UsageError(
            f"{name} is not a command; to map its images: {_line('batch', name, '--out', 'maps')}"
        )
    if Path(name).suffix or Path(name).exists():
        ways = f"{_line('classify', name)}, or {_line('heatmap', name, '--out', 'map.png')}"
        return UsageError(f"{name} is not a command; name one, as in: {ways}")
    if near := get_close_matches(name, known, 1):
        return UsageError(f"unknown command {name!r}; did you mean {near[0]!r}? 'fcnconv -h' lists them all")
    return UsageError(f"unknown command {name!r}; known: {', '.join(known)}")
