"""`fcnconv doctor`: reports the installation, the machine, and what would make fcnconv faster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from fcnconv.cli.arguments import Debug, Json, with_options
from fcnconv.system.progress import counted
from fcnconv.system.stdout import data_stream, print_data

if TYPE_CHECKING:
    from fcnconv.cli.installation import Installation


@with_options
def doctor(
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Report the installation, and what would speed it up.

    Reports versions, processor features, free memory, caches and optional extras.
    Include this output in bug reports. It names folders of your account, but no images and no models.

        fcnconv doctor
        fcnconv doctor --json
    """
    from fcnconv.cli.installation import inspect_installation
    from fcnconv.cli.printing import print_json_line

    found = inspect_installation()
    if as_json:
        record = asdict(found)
        for cache in record["caches"]:
            cache["path"] = str(cache["path"])
        print_json_line(record)
        return
    rows = list(_rows(found))
    if not data_stream().isatty():
        for row in rows:
            print_data(*row)
        return
    topic, name = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        print_data(f"{row[0]:{topic}}  {row[1]:{name}}  {row[2]}".rstrip())


def _rows(found: Installation) -> Iterator[tuple[str, str, str]]:
    """Yields one row per fact: its topic, its name and its value."""
    for name, version in found.versions.items():
        yield "version", name, version or "not installed"
    yield "machine", "processor", found.processor or "unknown"
    yield "machine", "processors", f"{found.cpus} of {found.cpus_total} usable"
    features = "unknown" if found.features is None else " ".join(found.features) or "none relevant"
    yield "machine", "features", features
    yield "machine", "free memory", f"{found.memory_free / 1e9:.1f} GB"
    for gpu in found.gpus:
        yield "machine", "NVIDIA GPU", gpu
    for cache in found.caches:
        size = f"{counted(cache.files, 'file')}, {cache.size / 1e6:.1f} MB"
        yield "cache", cache.holds, f"{cache.path}, {size if cache.writable else 'not writable'}"
    for plan, result in found.measured:
        yield "measured", plan, result
    for extra in found.extras:
        state = "installed"
        if extra.missing:
            state = f"missing {', '.join(extra.missing)}: pip install 'fcnconv[{extra.name}]'"
        yield "extra", extra.name, f"{state}; {extra.gives}"
    if not found.extras:
        yield "extra", "", "unknown: fcnconv is not installed as a package"
    for advice in found.advice or ("nothing to change",):
        yield "faster", "", advice
