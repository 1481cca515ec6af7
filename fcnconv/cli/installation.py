"""Inspects the installation and the machine, without importing any of the libraries.

`fcnconv doctor` prints the result. It belongs in bug reports, and says what would make fcnconv faster.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fcnconv.models.download import hub_folder
from fcnconv.system.machine import ROOT, free_memory, processor_features, processor_name, usable_cpus
from fcnconv.system.records import cache_path, unsealed
from fcnconv.version import __version__

EXTRAS = {
    "geo": "GeoTIFF and other GDAL rasters, map coordinates, GeoPackage, --mask with polygons",
    "heif": "HEIC and HEIF photos",
    "jxl": "JPEG XL photos",
    "large": "TIFF and other large images read region by region",
    "openvino": "--backend openvino, --precision bfloat16",
    "pandas": "score_map.to_dataframe()",
    "parquet": "batch -f parquet",
    "ray": "batch --engine ray",
    "remote": "images and maps in s3://, gs:// and https://",
    "safetensors": "weights in .safetensors files",
    "slides": "whole-slide images (OpenSlide)",
    "tiff": "OME-TIFF, ImageJ and compressed scientific TIFF files",
    "timm": "networks of timm: --model timm/NAME, --arch timm/NAME",
    "transformers": "networks of Hugging Face transformers",
    "xarray": "score_map.to_xarray()",
    "yaml": "class names in YAML files",
    "zarr": "OME-Zarr and Zarr, to read and to write",
}
"""Each optional extra of the package -> what it adds. Extras for development are not listed."""

FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8", "asimd", "asimddp", "sve", "bf16", "i8mm"),
)
"""Processor features that make neural networks faster, spelled as in /proc/cpuinfo."""

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""The features that multiply bfloat16 numbers in hardware."""

_LITTLE_MEMORY = 4e9
"""Bytes of free memory below which a scan gets less than the default of 2 GB."""


@dataclass(frozen=True)
class Extra:
    """An optional extra of the package.

    Attributes:
        name: as in ``pip install 'fcnconv[NAME]'``.
        gives: what it adds.
        missing: the packages it needs that are not installed; empty if it is complete.
    """

    name: str
    gives: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """A folder where fcnconv keeps files.

    Attributes:
        holds: what it contains.
        path: where it is, whether or not it exists.
        files: the number of files in it.
        size: their total size in bytes.
        writable: whether files can be added to it.
    """

    holds: str
    path: Path
    files: int
    size: int
    writable: bool


@dataclass(frozen=True)
class Installation:
    """Everything that `fcnconv doctor` reports.

    Attributes:
        versions: fcnconv, Python, the system, and each library that fcnconv always needs -> its version, or
            None for a library that is not installed.
        processor: its name; empty if the system does not report it.
        features: the entries of `FEATURES` that it has, or None if the system does not report them.
        cpus: the number of processors that this process may use. cpus_total: the number in the machine.
        memory_free: bytes that this process can still allocate, within the limits of its container.
        gpus: the NVIDIA GPUs that the driver reports.
        caches: the folders that hold plans, facts about models and downloaded weights.
        measured: for each network that was measured in OpenVINO: its plan, and the result.
        extras: the optional extras, installed or not; empty if fcnconv is not installed as a package.
        advice: what would make fcnconv faster here, one sentence each.
    """

    versions: dict[str, str | None]
    processor: str
    features: tuple[str, ...] | None
    cpus: int
    cpus_total: int
    memory_free: int
    gpus: tuple[str, ...]
    caches: tuple[Cache, ...]
    measured: tuple[tuple[str, str], ...]
    extras: tuple[Extra, ...]
    advice: tuple[str, ...]


def inspect_installation(root: Path = ROOT) -> Installation:
    """Inspect what is installed and what the machine offers.

    Args:
        root: the folder that contains the system's ``proc`` and ``sys``; tests pass their own.
    """
    caches = (
        _cache("plans", cache_path() / "plans"),
        _cache("facts about models", cache_path() / "models"),
        _cache("downloaded weights", hub_folder()),
    )
    extras = tuple(_extras())
    features = processor_features(root)
    known_features = None if features is None else tuple(name for name in FEATURES if name in features)
    cpus, total, memory = usable_cpus(root), os.cpu_count() or 1, free_memory(root)
    gpus = tuple(sorted(folder.name for folder in _folder(root / "proc/driver/nvidia/gpus")))
    return Installation(
        versions=_versions(),
        processor=processor_name(root),
        features=known_features,
        cpus=cpus,
        cpus_total=total,
        memory_free=memory,
        gpus=gpus,
        caches=caches,
        measured=tuple(_measured(cache_path() / "plans")),
        extras=extras,
        advice=tuple(_advice(known_features, cpus, total, memory, gpus, caches, extras)),
    )


def _advice(
    features: tuple[str, ...] | None,
    cpus: int,
    total: int,
    memory: int,
    gpus: tuple[str, ...],
    caches: tuple[Cache, ...],
    extras: tuple[Extra, ...],
) -> Iterable[str]:
    plans = caches[0]
    if not plans.writable:
        yield (
            f"nothing can be written to {plans.path}, so every run loads torch: "
            "set XDG_CACHE_HOME to a writable folder"
        )
    elif not plans.files:
        yield "no model is prepared yet: 'fcnconv prepare' does the work of the first run in advance"
    if features and BFLOAT16.intersection(features):
        missing = any(extra.name == "openvino" and extra.missing for extra in extras)
        first = "install the extra openvino, then " if missing else ""
        yield (
            f"this processor computes in bfloat16: {first}'fcnconv prepare --precision bfloat16' measures "
            "how much faster and how much less exact that is"
        )
    elif features is not None and not {"avx2", "asimd"}.intersection(features):
        yield "this processor has no AVX2, which makes ONNX Runtime much faster"
    if gpus:
        yield "there is an NVIDIA GPU: --backend torch --device cuda uses it if torch was installed with CUDA"
    if cpus < total:
        yield (
            f"only {cpus} of {total} processors may be used: OMP_NUM_THREADS, the container or the scheduler "
            "sets the limit"
        )
    if memory < _LITTLE_MEMORY:
        yield (
            f"{memory / 1e9:.1f} GB of memory are free, and a scan takes up to half of that: with more "
            "memory, large images are read in fewer tiles"
        )


def _measured(plans: Path) -> Iterable[tuple[str, str]]:
    """The measurements that `backends.openvino` stored next to plans."""
    for path in sorted(plans.glob("*.*float*.json")):
        try:
            record = unsealed(path.read_bytes())
            share = 1 / float(record["faster"])
        except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
            continue  # incomplete, or of another version
        name, number = path.stem.rsplit(".", 1)
        took = f"OpenVINO in {number} takes {share:.2f} of the time of ONNX Runtime in float32"
        yield name, f"{took} ({record.get('on', 'unknown versions')})"


def _versions() -> dict[str, str | None]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}".strip()
    versions: dict[str, str | None] = {
        "fcnconv": __version__,
        "Python": platform.python_version(),
        "system": system,
    }
    versions |= {name: _version(name) for name, extra in _requirements() if extra is None}
    return versions


def _extras() -> Iterable[Extra]:
    needed: dict[str, list[str]] = {}
    for package, extra in _requirements():
        if extra in EXTRAS:
            needed.setdefault(extra, []).append(package)
    for name, packages in sorted(needed.items()):
        missing = tuple(package for package in packages if _version(package) is None)
        yield Extra(name, EXTRAS[name], missing)


def _requirements() -> list[tuple[str, str | None]]:
    """Each package that fcnconv requires, with the extra that requires it, or None for a core requirement.

    Empty if fcnconv itself is not installed, for example when it runs from a copied folder.
    """
    try:
        lines = metadata.requires("fcnconv") or []
    except metadata.PackageNotFoundError:
        return []
    requirements = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        if name:
            requirements.append((name[0], extra[1] if extra else None))
    return requirements


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cache(holds: str, path: Path) -> Cache:
    sizes = []
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                sizes.append(Path(folder, name).stat().st_size)
            except OSError:  # deleted meanwhile, or a broken link
                continue
    return Cache(holds, path, len(sizes), sum(sizes), _writable(path))


def _writable(path: Path) -> bool:
    """Whether a folder, or the nearest folder above it that exists, can be written to."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _folder(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:  # no such driver
        return []
