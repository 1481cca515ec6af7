"""Plans: a network exported to ONNX once, proved, kept in the user's cache, and run without importing torch.

A plan is an ONNX file with a record at its end: what it is of, its geometry, what was proved of it, and a
SHA-256 over all that. Its name tells the same apart, so a plan that is there and sound is the right one. Two
processes that make one at the same time write the same thing, and the last one stays.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path

from fcnconv import __version__
from fcnconv.backends import Network, Run
from fcnconv.backends.parts import part_of, part_record, parts_file, read_parts
from fcnconv.backends.runtime import new_session, session_run
from fcnconv.backends.windows import crop_parts, windows_geometry, windows_run
from fcnconv.errors import PlanError
from fcnconv.files import whole_file
from fcnconv.grid import Geometry
from fcnconv.models import ModelSpec
from fcnconv.provenance import Mode
from fcnconv.scan.parts import Part
from fcnconv.scan.tiles import Parts

log = logging.getLogger("fcnconv")

_RECORD, _DIGEST = "fcnconv", "fcnconv_sha256"
_STALE = 3600
"""Seconds after which a temporary file must be a killed process's; writing one takes less than 1."""


@dataclass(frozen=True)
class Record:
    """What a plan says of itself.

    geometry: of the network's windows; None in `windows` mode, where the crops need not be planned.
    conversion_error: largest difference of a logit between classifier and converted network, as a share of
        the largest logit; 0 in `windows` mode, which converts nothing.
    export_error: the same between torch and ONNX Runtime.
    """

    model: str
    mode: Mode
    weights_sha256: str
    version: str
    geometry: Geometry | None
    conversion_error: float
    export_error: float


@dataclass(frozen=True)
class Plan:
    """A plan that has been read and found sound.

    run: its network. whole: what that needs; None in `windows` mode.
    """

    path: Path
    record: Record
    run: Run
    whole: Part | None


def open_onnx(spec: ModelSpec, mode: Mode, stride: int | None = None) -> Network:
    """The model on ONNX Runtime, from its plan; one is made if it is missing or damaged. Raises PlanError."""
    plan = open_plan(spec, mode, stride)
    if plan.record.geometry is None or plan.whole is None:
        geometry = windows_geometry(spec.window, stride or spec.stride)
        run = windows_run(plan.run, spec.window, geometry.stride)
        parts = crop_parts(run, geometry, len(spec.labels()))
        return Network(run, geometry, plan.record.weights_sha256, parts)
    parts = Parts(plan.whole, cache(partial(open_parts, spec, plan, stride)))
    return Network(plan.run, plan.record.geometry, plan.record.weights_sha256, parts)


def open_parts(spec: ModelSpec, plan: Plan, stride: int | None = None) -> tuple[Part, ...]:
    """The network of a plan in parts: from beside it, else made and kept there; on torch if none can be made.
    One that cannot be cut is one part; real crops need none.
    """
    if plan.whole is None:
        return ()
    if plan.record.geometry is None or not plan.record.geometry.local:
        return (plan.whole,)
    path = plan.path.with_suffix(".parts")
    if path.exists():
        try:
            return read_parts(path)
        except PlanError as error:
            log.info("%s; making them again", error)
    log.info("cutting %s into parts, for scans in little memory: a few seconds, once", spec.name)
    from fcnconv.backends.cutting import cut_plan
    from fcnconv.backends.torch import torch_parts
    from fcnconv.convert import convolutionize

    network = convolutionize(spec.build(spec.weights()), spec.window, stride)
    try:
        parts, models = cut_plan(network)
    except PlanError as error:
        log.info("%s; running the parts with torch instead", error)
        return torch_parts(network)
    try:
        with _kept(path), whole_file(path) as temporary:
            temporary.write_bytes(parts_file(parts, models))
    except PlanError as error:
        log.info("%s; the parts will be made again", error)
    return parts


def open_plan(spec: ModelSpec, mode: Mode, stride: int | None = None) -> Plan:
    """The model's plan: from the cache, else made and kept there. Raises PlanError."""
    if not spec.arch:
        raise PlanError(
            f"{spec.name} was built in Python: its code has no name by which a plan could be found"
        )
    stride = stride if mode == "fcn" else None  # crops need no plan of their own for it
    if stride is not None:
        spec.require_stride(stride)
    weights = spec.weights()
    weights_sha256 = spec.sha256(weights)
    path = plan_path(spec, mode, weights_sha256, stride)
    if path.exists():
        try:
            return read_plan(path)
        except PlanError as error:
            log.info("%s; making it again", error)
    with _kept(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable")
        _sweep(path.parent)
    log.info("making the plan of %s (%s mode): a few seconds, once", spec.name, mode)
    plan = _make(spec, mode, weights, weights_sha256, stride)
    with _kept(path), whole_file(path) as temporary:
        temporary.write_bytes(plan)
    return read_plan(path)


def plan_path(spec: ModelSpec, mode: Mode, weights_sha256: str, stride: int | None = None) -> Path:
    """Where the plan of a model lies, whether or not it is there.

    The name holds all that the network depends on: weights, architecture, window, mode, stride and fcnconv's
    version.
    """
    key = hashlib.sha256("\n".join((weights_sha256, spec.arch, str(spec.window))).encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", spec.name)[-60:]
    return user_cache_path("fcnconv") / "plans" / f"{readable}-{mode}{stride or ''}-{key}-{__version__}.onnx"


def read_plan(path: Path) -> Plan:
    """The plan in a file. Raises PlanError if it cannot be read, or is not the file that was written."""
    try:
        session = new_session(str(path))
        metadata = session.get_modelmeta().custom_metadata_map
        text, digest = metadata[_RECORD], metadata[_DIGEST]
        with path.open("rb") as file:
            if _digest(file, path.stat().st_size - len(_seal(text, digest)), text) != digest:
                raise PlanError("its SHA-256 is another")
        fields, run = json.loads(text), session_run(session)
        whole = fields.pop("whole")
        if fields["geometry"] is not None:
            fields["geometry"] = Geometry(**fields["geometry"])
        return Plan(path, Record(**fields), run, whole and part_of(whole, run))
    except Exception as error:  # ONNX Runtime's errors share no class but this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PlanError(f"{path}: the plan is damaged ({reason})") from error


def _make(spec: ModelSpec, mode: Mode, weights: Path, weights_sha256: str, stride: int | None) -> bytes:
    from fcnconv.backends.export import export_onnx, prove_export
    from fcnconv.convert import convolutionize
    from fcnconv.convert.cuts import whole

    network, any_size = spec.build(weights).eval(), mode == "fcn"
    converted = convolutionize(network, spec.window, stride) if mode == "fcn" else None
    network = converted or network
    geometry = converted.geometry if converted else None
    conversion_error = converted.proof.relative_error if converted else 0.0
    model = export_onnx(network, spec.window, any_size=any_size)
    run = session_run(new_session(model))
    export_error = prove_export(network, run, spec.window, any_size=any_size)
    needs = None
    if converted:
        needs = part_record(whole(converted.network, converted.geometry, run, channels_last=False))
    record = Record(spec.name, mode, weights_sha256, __version__, geometry, conversion_error, export_error)
    text = json.dumps(asdict(record) | {"whole": needs})
    return model + _seal(text, _digest(io.BytesIO(model), len(model), text))


def _digest(file: BinaryIO, size: int, text: str) -> str:
    """The SHA-256 of the first `size` bytes of a file and of `text`."""
    digest = hashlib.sha256()
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


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise PlanError(f"{path.parent}: no plan can be kept there ({reason})") from error


def _sweep(folder: Path) -> None:
    """Removes what killed processes left half-written."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _STALE:
                temporary.unlink()
