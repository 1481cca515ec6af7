"""Plans as files: a network exported to ONNX once, proved, and stored in the user's cache with its stages.

A plan is an ONNX file with a record next to it, a JSON file that contains the identity of the network, its
geometry, the proof, and the SHA-256 of the ONNX file. The name of a plan contains everything that
distinguishes it from other plans, so an intact plan with the right name is the right plan. If two processes
make the same plan at the same time, either plan is valid, and the last one stays.
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
from fcnconv.models.weight_files import sha256_now
from fcnconv.provenance import CellHead, Identity, Mode, Proof
from fcnconv.scan.stages import Forward, Stage
from fcnconv.system.files import whole_file
from fcnconv.system.leftovers import remove_leftovers
from fcnconv.system.once import once
from fcnconv.system.records import cache_path, sealed, unsealed
from fcnconv.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from fcnconv.convert import FullyConvolutional

Start = Callable[[str | bytes], Forward]
"""Returns a function that runs an ONNX file, from its path or its content."""

_PARTS = "parts.json"


@dataclass(frozen=True)
class PlanRecord:
    """The record of a plan.

    Attributes:
        identity: identity of the model for which it was made. A model with another name, mean or std can use
            the same plan.
        geometry, proof: of the converted network; None in `windows` mode, which converts nothing, and for
            crops without a separate plan.
        cell_head: its class activations.
        export_error: largest difference of a logit between torch and ONNX Runtime, as a share of the largest
            logit.
        seconds: time that it took to make, including the import of torch.
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
    """A plan that has been read and is intact.

    Attributes:
        run: its network.
        whole: the network as one stage; None in `windows` mode.
    """

    path: Path
    record: PlanRecord
    run: Forward
    whole: Stage | None


@dataclass(frozen=True)
class PlanContent:
    """The content of a plan before it is written.

    Attributes:
        model: its ONNX file.
        whole: the network as one stage; None in `windows` mode.
    """

    model: bytes
    record: PlanRecord
    whole: Stage | None


class Networks:
    """A model's network and its converted form in torch. Each is built when the first plan needs it."""

    def __init__(self, spec: ModelSpec, stride: int | None):
        self.original: Callable[[], nn.Module] = once(lambda: spec.build(spec.weights()).eval())

        def convert() -> FullyConvolutional:
            from fcnconv.convert import convolutionize

            return convolutionize(self.original(), spec.window, stride)

        self.converted: Callable[[], FullyConvolutional] = once(convert)


def plan_path(
    spec: ModelSpec, mode: Mode, weights_sha256: str, stride: int | None = None, *, joint: bool = False
) -> Path:
    """The path of a model's plan, which need not exist.

    The name contains everything that the network depends on, and nothing else: the content of its weights,
    architecture, window, mode, stride, whether it returns class activations as well as logits (`joint`), and
    fcnconv's version. A weights file has one plan, whatever its path.
    """
    key = hashlib.sha256("\n".join((weights_sha256, spec.arch, str(spec.window))).encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", spec.arch)[-60:]
    kind = f"{mode}{stride or ''}{'-activations' if joint else ''}"
    return cache_path() / "plans" / f"{readable}-{kind}-{key}-{__version__}.onnx"


def read_plan(path: Path, start: Start) -> Plan:
    """Reads a plan.

    Raises:
        PlanError: the plan cannot be read, or its files were altered.
    """
    try:
        content = unsealed(_record_path(path).read_bytes())
        stage, sha256 = content.pop("whole"), content.pop("sha256")
        if sha256_now(path) != sha256:
            raise PlanError("its SHA-256 differs from its record")
        run = start(str(path))
        return Plan(path, _record(content), run, stage and Stage(run=run, **stage))
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise PlanError(f"{path}: the plan is damaged ({first_line(error)})") from error


@contextmanager
def kept_plan(path: Path, record: PlanRecord, whole: Stage | None) -> Iterator[Path]:
    """A temporary path for writing a plan's ONNX file. The plan's two files appear when the block ends
    without an error.

    Each file appears complete or not at all. The record appears first, so that every existing plan has one.

    Args:
        path: path of the plan.
        record: its record.
        whole: the network as one stage; None in `windows` mode.

    Raises:
        PlanError: the files cannot be written.
    """
    with _kept(path), whole_file(path) as temporary:
        yield temporary
        content = asdict(record) | {
            "whole": whole and stage_record(whole),
            "sha256": sha256_now(temporary),
        }
        with whole_file(_record_path(path)) as file:
            file.write_bytes(sealed(content).encode())


def remove_plan(path: Path) -> None:
    """Removes a plan's two files, if they exist."""
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _record(content: dict[str, Any]) -> PlanRecord:
    identity, geometry, proof, cell_head = (
        content.pop(name) for name in ("identity", "geometry", "proof", "cell_head")
    )
    for name in ("mean", "std"):
        identity[name] = tuple(identity[name])
    return PlanRecord(
        **content,
        identity=Identity(**identity),
        geometry=geometry and Geometry(**geometry),
        proof=proof and Proof(**proof),
        cell_head=CellHead(**cell_head),
    )


def read_stages(path: Path, start: Start) -> tuple[Stage, ...]:
    """Reads the stages from an archive made by `stages_file`.

    Raises:
        PlanError: it cannot be read, or is damaged. It contains checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = json.loads(archive.read(_PARTS))
            runs = [start(archive.read(f"{number}.onnx")) for number, _ in enumerate(records)]
        return tuple(Stage(run=run, **record) for record, run in zip(records, runs, strict=True))
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        raise PlanError(f"{path}: the stages are damaged ({first_line(error)})") from error


def stages_file(stages: Sequence[Stage], models: Sequence[bytes]) -> bytes:
    """The content of an archive of stages.

    Args:
        stages: the stages.
        models: the ONNX file of each stage.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_PARTS, json.dumps([stage_record(stage) for stage in stages]))
        for number, model in enumerate(models):
            archive.writestr(f"{number}.onnx", model)
    return file.getvalue()


def stage_record(stage: Stage) -> dict[str, Any]:
    """The record of a stage, without the function that runs it."""
    return {field.name: getattr(stage, field.name) for field in fields(stage) if field.name != "run"}


def make_room(path: Path) -> None:
    """Creates the folder of a plan, and removes incomplete files that killed processes left there.

    Raises:
        PlanError: nothing can be stored there.
    """
    with _kept(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError("not writable")
    remove_leftovers(path.parent)


def keep(path: Path, content: bytes) -> None:
    """Writes a plan or its stages, completely or not at all. Raises PlanError."""
    with _kept(path), whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Lets one process at a time, and one of its threads, run the block that makes `path`.

    A process that had to wait checks first whether the file exists now. The lock ends with its process,
    however the process ends. If no lock is possible, as in a read-only folder, nobody waits; the file still
    appears completely or not at all.

    Args:
        path: the file that the block makes. The lock is a file next to it, which is removed at the end.
        waiting: called once before waiting.
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
            Path(lock.lock_file).unlink()  # while the lock is held: waiting processes open a new file
        lock.release()


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlanError(f"{path.parent}: no plan can be stored there ({reason})") from error
