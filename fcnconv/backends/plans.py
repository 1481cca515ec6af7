"""Plans as files: a network exported to ONNX once, proved, and kept in the user's cache; its parts beside.

A plan is an ONNX file with a record at its end: what it is of, its geometry, what was proved of it, and a
SHA-256 over all that. Its name tells the same apart, so a plan that is there and sound is the right one. Of
two that are made at the same time either will do, and the last one stays.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from fcnconv.errors import PlanError, first_line
from fcnconv.grid import Geometry
from fcnconv.models import ModelSpec
from fcnconv.provenance import CellHead, Identity, Mode, Proof
from fcnconv.scan.parts import Part, Run
from fcnconv.system.cache import cache_path
from fcnconv.system.files import whole_file
from fcnconv.system.leftovers import remove_leftovers
from fcnconv.version import __version__

Start = Callable[[str | bytes], Run]
"""Runs an ONNX file, given by its path or its content."""

_RECORD, _DIGEST = "fcnconv", "fcnconv_sha256"
_MOST = 1 << 16
"""Bytes that a record and its digest take at most."""

_PARTS = "parts.json"


@dataclass(frozen=True)
class Record:
    """What a plan says of itself.

    identity: of the model that it was made for; another name, mean or std need no other plan.
    geometry, proof: of the converted network; None in `windows` mode, which converts nothing, and where the
        crops need not be planned. cell_head: its class activations.
    export_error: largest difference of a logit between torch and ONNX Runtime, as a share of the largest.
    seconds: that it took to make, from the import of torch on.
    """

    identity: Identity
    mode: Mode
    version: str
    num_classes: int
    geometry: Geometry | None
    proof: Proof | None
    cell_head: CellHead
    export_error: float
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Plan:
    """A plan that has been read and found sound.

    run: its network. whole: what that needs; None in `windows` mode.
    """

    path: Path
    record: Record
    run: Run
    whole: Part | None


def plan_path(
    spec: ModelSpec, mode: Mode, weights_sha256: str, stride: int | None = None, *, joint: bool = False
) -> Path:
    """Where the plan of a model lies, whether or not it is there.

    The name holds all that the network depends on, and nothing else: the content of its weights,
    architecture, window, mode, stride, whether it gives class activations beside the logits (`joint`), and
    fcnconv's version. A file of weights has one plan, whatever path it is named by.
    """
    key = hashlib.sha256("\n".join((weights_sha256, spec.arch, str(spec.window))).encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", spec.arch)[-60:]
    kind = f"{mode}{stride or ''}{'-activations' if joint else ''}"
    return cache_path() / "plans" / f"{readable}-{kind}-{key}-{__version__}.onnx"


def read_plan(path: Path, start: Start) -> Plan:
    """The plan in a file. Raises PlanError if it cannot be read, or is not the file that was written."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            text, digest = _unsealed(_tail(file, size))
            if _sha256(file, size - len(_seal(text, digest)), text) != digest:
                raise PlanError("its SHA-256 is another")
        record, run = json.loads(text), start(str(path))
        part = record.pop("whole")
        return Plan(path, _record(record), run, part and Part(run=run, **part))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise PlanError(f"{path}: the plan is damaged ({first_line(error)})") from error


def plan_file(model: bytes, record: Record, whole: Part | None) -> bytes:
    """The content of a plan's file. model: its ONNX file. whole: what the network needs."""
    text = json.dumps(asdict(record) | {"whole": whole and part_record(whole)})
    return model + _seal(text, _sha256(io.BytesIO(model), len(model), text))


def _record(told: dict[str, Any]) -> Record:
    identity, geometry, proof, cell_head = (
        told.pop(name) for name in ("identity", "geometry", "proof", "cell_head")
    )
    for name in ("mean", "std"):
        identity[name] = tuple(identity[name])
    return Record(
        **told,
        identity=Identity(**identity),
        geometry=geometry and Geometry(**geometry),
        proof=proof and Proof(**proof),
        cell_head=CellHead(**cell_head),
    )


def read_parts(path: Path, start: Start) -> tuple[Part, ...]:
    """The parts in an archive that `parts_file` made. Raises PlanError if it cannot be read, or is damaged:
    it has checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = json.loads(archive.read(_PARTS))
            runs = [start(archive.read(f"{number}.onnx")) for number, _ in enumerate(records)]
        return tuple(Part(run=run, **record) for record, run in zip(records, runs, strict=True))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise PlanError(f"{path}: the parts are damaged ({first_line(error)})") from error


def parts_file(parts: Sequence[Part], models: Sequence[bytes]) -> bytes:
    """The content of an archive of parts. models: the ONNX file of each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_PARTS, json.dumps([part_record(part) for part in parts]))
        for number, model in enumerate(models):
            archive.writestr(f"{number}.onnx", model)
    return file.getvalue()


def part_record(part: Part) -> dict[str, Any]:
    """What a part says of itself, without what runs it."""
    return {field.name: getattr(part, field.name) for field in fields(part) if field.name != "run"}


def make_room(path: Path) -> None:
    """Makes the folder of a plan, and removes what killed processes left half-written there. Raises PlanError
    if nothing can be kept in it.
    """
    with _kept(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("not writable")
    remove_leftovers(path.parent)


def keep(path: Path, content: bytes) -> None:
    """Writes a plan or its parts, whole or not at all. Raises PlanError."""
    with _kept(path), whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lets one process at a time, and one thread of it, into the block in which `path` is made.

    A process that had to wait checks first whether the file exists now. The lock ends with its process, however
    that ends. Where no lock can be had, as in a read-only folder, nobody waits: the file appears whole anyway.

    Args:
        path: The file that is made. The lock is a file beside it, which is removed at the end.
        waiting: Called once before waiting.
    """
    from filelock import FileLock, Timeout  # imported only when something is made: it takes 20 ms

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except (OSError, NotImplementedError):  # no such folder, not writable, no locks on this file system
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()  # while it is held: those who wait for it open a new one
        lock.release()


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlanError(f"{path.parent}: no plan can be kept there ({reason})") from error


def _sha256(file: BinaryIO, size: int, text: str) -> str:
    """The SHA-256 of the first `size` bytes of a file and of `text`."""
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(min(size, 1 << 20)):
        digest.update(chunk)
        size -= len(chunk)
    digest.update(text.encode())
    return digest.hexdigest()


def _seal(text: str, digest: str) -> bytes:
    """The record and its digest as the end of an ONNX file.

    Protocol Buffers merges messages that are written one after another, so these bytes, the field
    ``metadata_props`` of a ModelProto, become part of the model that they are appended to.
    """
    return _metadata(_RECORD, text) + _metadata(_DIGEST, digest)


def _unsealed(tail: bytes) -> tuple[str, str]:
    """The record and its digest from the end of a plan's file. Raises ValueError if they are not there."""
    key = b"\x0a" + _length(_RECORD.encode()) + _RECORD.encode() + b"\x12"
    start = tail.rindex(key) + len(key)
    while tail[start] & 0x80:  # of the text's length
        start += 1
    text, digest = tail[start + 1 : tail.rindex(b"}") + 1].decode(), tail[-64:].decode()
    if not tail.endswith(_seal(text, digest)):
        raise ValueError("its record is not whole")
    return text, digest


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(size - _MOST, 0))
    return file.read()


def _metadata(key: str, value: str) -> bytes:
    entry = b"".join(
        tag + _length(text) + text for tag, text in ((b"\x0a", key.encode()), (b"\x12", value.encode()))
    )
    return b"\x72" + _length(entry) + entry  # 0x72: field 14, of variable length


def _length(data: bytes) -> bytes:
    rest, out = len(data), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])
