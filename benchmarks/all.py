"""Writes the tables of benchmarks/README.md: each anew, by the command that stands above it.

    python benchmarks/all.py                 (all of them: half an hour on two cores that do nothing else)
    python benchmarks/all.py start dense     (those of these scripts)

A table stands between ``<!-- python benchmarks/… -->``, its command, and ``<!-- end -->``; a command that
fails leaves its table as it was. The line between ``<!-- machine -->`` and its end tells where all that was
measured.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PAGE = Path(__file__).parent / "README.md"
BLOCK = re.compile(r"(<!-- (machine|python benchmarks/(\w+)\.py.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def machine() -> str:
    """The processor, how many of it, and the versions that count."""
    told = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", told.read_text()) if told.exists() else None
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx512f") if found and name in told.read_text()]
    versions = []
    for name in ("torch", "onnxruntime", "openvino"):
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    processor = found[1] if found else platform.processor()
    return (
        f"{processor} ({', '.join(features) or 'no AVX512'}), {os.cpu_count()} cores, no GPU; Python "
        f"{platform.python_version()}, {', '.join(versions)}; {date.today():%B %Y}.\n"
    )


def main() -> None:
    chosen, failed = sys.argv[1:], []
    for start, command, script, _, _ in BLOCK.findall(PAGE.read_text()):
        if chosen and script not in chosen and command != "machine":
            continue
        print(command, flush=True)
        if command == "machine":
            content = machine()
        else:
            words = [sys.executable, *shlex.split(command)[1:]]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=PAGE.parents[1])
            content = done.stdout.strip() + "\n"
            if done.returncode:
                failed.append(command)
                continue
        text = PAGE.read_text()  # as it is now: each table is kept as soon as it is there
        at = text.index(start) + len(start)
        PAGE.write_text(text[:at] + "\n" + content + "\n" + text[text.index("<!-- end -->", at) :])
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
