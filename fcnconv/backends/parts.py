"""A network's parts on ONNX Runtime, for scans in little memory: an archive of them beside its plan."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.backends import Run
from fcnconv.backends.runtime import new_session, session_run
from fcnconv.errors import PlanError
from fcnconv.scan.parts import Part

_RECORDS = "parts.json"


def read_parts(path: Path) -> tuple[Part, ...]:
    """The parts in an archive that `parts_file` made. Raises PlanError if it cannot be read, or is damaged:
    it has checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = json.loads(archive.read(_RECORDS))
            runs = [part_run(archive.read(_name(number))) for number, _ in enumerate(records)]
        return tuple(part_of(record, run) for record, run in zip(records, runs, strict=True))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PlanError(f"{path}: the parts are damaged ({reason})") from error


def parts_file(parts: Sequence[Part], models: Sequence[bytes]) -> bytes:
    """The content of an archive of parts. models: the ONNX file of each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_RECORDS, json.dumps([part_record(part) for part in parts]))
        for number, model in enumerate(models):
            archive.writestr(_name(number), model)
    return file.getvalue()


def part_record(part: Part) -> dict[str, Any]:
    """What a part says of itself, without what runs it."""
    return {field.name: getattr(part, field.name) for field in fields(part) if field.name != "run"}


def part_of(record: dict[str, Any], run: Run) -> Part:
    """The part of a record, run by `run`."""
    return Part(run=run, **record)


def part_run(model: bytes) -> Run:
    """A part's run, in the arena that all parts share. model: its ONNX file."""
    run = session_run(new_session(model, shared=True))
    return lambda x: run(np.ascontiguousarray(x))


def _name(number: int) -> str:
    return f"{number}.onnx"
