"""Checks what is in the wheel and the source distribution.

python -m build --outdir dist && python docs/maintain/check_wheel.py dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def expected() -> set[str]:
    """The files of the package: its modules, its data, and the mark that it has types."""
    files = (path for path in ROOT.joinpath("fcnconv").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in files}


def problems(folder: Path) -> list[str]:
    """What is wrong with the one wheel and the one source distribution in a folder."""
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(source) as archive:
        inside = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    own = {name for name in packed if ".dist-info/" not in name}
    told = {name.partition("/")[2] for name in packed - own}
    found = [f"{wheel.name}: lacks {name}" for name in sorted(expected() - own)]
    found += [f"{wheel.name}: holds {name}" for name in sorted(own - expected())]
    found += [f"{wheel.name}: lacks {name}" for name in ("licenses/LICENSE", "METADATA") if name not in told]
    more = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"}
    found += [f"{source.name}: lacks {name}" for name in sorted((expected() | more) - inside)]
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or "the wheel and the source distribution are whole")
    sys.exit(bool(wrong))
