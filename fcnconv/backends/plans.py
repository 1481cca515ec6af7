"""Plans as files: a network exported to ONNX once, proved, and kept in the user's cache; its parts beside.

A plan is an ONNX file and a record beside it, a JSON file: what the plan is of, its geometry, what was proved
of it, and the SHA-256 of the ONNX file. Everything that distinguishes two plans is in their names, so a plan
that exists and is intact is the right one. If two processes make one at the same time, either will do, and
the last one stays.
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
from typing import TYPE_CHECKING, Any

from fcnconv.errors import PlanError, first_line
from fcnconv.grid import Geometry
from fcnconv.models import ModelSpec
from fcnconv.models.packaged import sha256_now
from fcnconv.provenance import CellHead, Identity, Mode, Proof
from fcnconv.scan.stages import Forward, Stage
from fcnconv.system.cache import cache_path
from fcnconv.system.files import whole_file
from fcnconv.system.leftovers import remove_leftovers
from fcnconv.system.once import once
from fcnconv.system.records import sealed, unsealed
from fcnconv.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.convert import FullyConvolutional

Start = Callable[[str | bytes], Forward]
"""Runs an ONNX file, given by its path or its content."""

_PARTS = "parts.json"


@dataclass(frozen=True)
class PlanRecord:
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
    record: PlanRecord
    run: Forward
    whole: Stage | None


@dataclass(frozen=True)
class PlanContent:
    """What is written of a plan.

    model: its ONNX file. whole: what its network needs; None in `windows` mode.
    """

    model: bytes
    record: PlanRecord
    whole: Stage | None


class Networks:
    """A model's network and its converted form in torch, each built when a plan of them is first made."""

    def __init__(self, spec: ModelSpec, stride: int | None):
        self.original: Callable[[], nn.Module] = once(lambda: spec.build(spec.weights()).eval())

        def convert() -> FullyConvolutional:
            from fcnconv.convert import convolutionize

            return convolutionize(self.original(), spec.window, stride)

        self.converted: Callable[[], FullyConvolutional] = once(convert)


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
    """Reads a plan. Raises PlanError if it cannot be read, or its files are not those that were written."""
    try:
        told = unsealed(_record_path(path).read_bytes())
        part, sha256 = told.pop("whole"), told.pop("sha256")
        if sha256_now(path) != sha256:
            raise PlanError("its SHA-256 differs from its record")
        run = start(str(path))
        return Plan(path, _record(told), run, part and Stage(run=run, **part))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise PlanError(f"{path}: the plan is damaged ({first_line(error)})") from error


@contextmanager
def kept_plan(path: Path, record: PlanRecord, whole: Stage | None) -> Iterator[Path]:
    """A temporary path to write a plan's ONNX file to. When the block ends well, the plan's two files appear.

    Each appears whole or not at all, and the record first, so that a plan that exists has one.
    Raises PlanError.

    Args:
        path: Of the plan.
        record: What the plan says of itself.
        whole: What its network needs; None in `windows` mode.
    """
    with _kept(path), whole_file(path) as temporary:
        yield temporary
        told = asdict(record) | {
            "whole": whole and part_record(whole),
            "sha256": sha256_now(temporary),
        }
        with whole_file(_record_path(path)) as file:
            file.write_bytes(sealed(told).encode())


def remove_plan(path: Path) -> None:
    """Removes a plan's two files, if they exist."""
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _record(told: dict[str, Any]) -> PlanRecord:
    identity, geometry, proof, cell_head = (
        told.pop(name) for name in ("identity", "geometry", "proof", "cell_head")
    )
    for name in ("mean", "std"):
        identity[name] = tuple(identity[name])
    return PlanRecord(
        **told,
        identity=Identity(**identity),
        geometry=geometry and Geometry(**geometry),
        proof=proof and Proof(**proof),
        cell_head=CellHead(**cell_head),
    )


def read_parts(path: Path, start: Start) -> tuple[Stage, ...]:
    """The parts in an archive that `parts_file` made. Raises PlanError if it cannot be read, or is damaged:
    it has checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = json.loads(archive.read(_PARTS))
            runs = [start(archive.read(f"{number}.onnx")) for number, _ in enumerate(records)]
        return tuple(Stage(run=run, **record) for record, run in zip(records, runs, strict=True))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        raise PlanError(f"{path}: the parts are damaged ({first_line(error)})") from error


def parts_file(parts: Sequence[Stage], models: Sequence[bytes]) -> bytes:
    """The content of an archive of parts. models: the ONNX file of each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_PARTS, json.dumps([part_record(part) for part in parts]))
        for number, model in enumerate(models):
            archive.writestr(f"{number}.onnx", model)
    return file.getvalue()


def part_record(part: Stage) -> dict[str, Any]:
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

    A process that had to wait checks first whether the file exists now. The lock ends with its process,
    however that ends. Where no lock can be had, as in a read-only folder, nobody waits; the file appears
    whole all the same.

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
