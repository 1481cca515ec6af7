"""Writes the bill of materials of an environment that the wheel was installed in, as CycloneDX JSON.

    pip install cyclonedx-bom
    python docs/maintain/make_sbom.py ENVIRONMENT/bin/python fcnconv.cdx.json

What each package is, its version, licence and what it depends on, as `cyclonedx-py` reads them. The result is
validated against CycloneDX's schema, and must hold fcnconv with all that it requires by itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def required() -> set[str]:
    """The packages that fcnconv requires by itself."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)
    if match is None:
        raise SystemExit("pyproject.toml names no dependencies")
    return {_normal(name) for name in re.findall(r'^\s*"([\w.-]+)', match[1], re.M)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(python: str, out: str) -> None:
    """Writes the bill of the environment of an interpreter to a file."""
    options = ["--pyproject", ROOT / "pyproject.toml", "--validate", "--output-reproducible", "-o", out]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", "environment", *options, python], check=True)
    bill = json.loads(Path(out).read_text(encoding="utf-8"))
    components = {_normal(part["name"]): part.get("version") for part in bill["components"]}
    missing = sorted(name for name in required() if not components.get(name))
    if bill["bomFormat"] != "CycloneDX" or missing or bill["metadata"]["component"]["name"] != "fcnconv":
        raise SystemExit(f"{out}: is no bill of fcnconv; without a version: {', '.join(missing) or 'none'}")
    print(f"{out}: {len(components)} packages, CycloneDX {bill['specVersion']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
