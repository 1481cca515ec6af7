"""What the package promises as a whole: its public names, what it imports, its version."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fcnconv

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there() -> None:
    assert dir(fcnconv) == fcnconv.__all__ == sorted(fcnconv.__all__, key=lambda name: (name.islower(), name))
    for name in fcnconv.__all__:
        assert getattr(fcnconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fcnconv.nothing  # noqa: B018


def imports() -> dict[str, set[str]]:
    """What each file and package at the first level imports of the others, at whatever place."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "fcnconv").rglob("*.py")):
        home = file.relative_to(ROOT / "fcnconv").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fcnconv"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found.setdefault(home, set()).update(name.split(".")[1] for name in names)
    homes = set(found) | {path.stem for path in (ROOT / "fcnconv").iterdir()}
    return {home: {name for name in names if name in homes} - {home} for home, names in found.items()}


def test_imports_go_down_only() -> None:
    graph = imports()
    del graph["__init__"], graph["__main__"]  # these only name what there is
    assert graph["classifier"] and not any("cli" in names for names in graph.values())
    assert [home for home, names in graph.items() if "commands" in names] == ["cli"]
    assert list(TopologicalSorter(graph).static_order()), "a cycle is an error of its own"
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph | {"errors": {"classifier"}}).static_order())


def imported(*arguments: str) -> set[str]:
    """The top-level modules that a fresh process of the command imports."""
    code = f"import sys; sys.argv = ['fcnconv', *{arguments!r}]\n" + (
        "from fcnconv.cli import main\n"
        "try: main()\n"
        "finally: print('\\n', *{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["classify", "--help"], ["heatmap", "x.jpg"], ["classify", "--no-such"]],
)
def test_what_needs_no_network_imports_no_torch(arguments: list[str]) -> None:
    modules = imported(*arguments)
    assert "fcnconv" in modules
    assert not modules & {"torch", "torchvision", "onnxruntime"}


HEAVY = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "timm",
    "matplotlib",
    "scipy",
    "pandas",
    "rich",
    "sympy",
}


@pytest.mark.parametrize(
    "command",
    [
        ["classify"],
        ["heatmap", "-o", "{folder}/map.npz"],
        ["heatmap", "-o", "{folder}/map.npz", "--scales", "4", "--max-memory", "450MB"],
        ["heatmap", "--dry-run", "--scales", "4", "--max-memory", "450MB"],
    ],
)
def test_a_run_on_a_plan_imports_little(command: list[str], lite0, tmp_path: Path) -> None:
    assert lite0.parts.cut()
    arguments = [part.format(folder=tmp_path) for part in command]
    modules = imported(*arguments, str(ROOT / "sample_images/coffee.png"))  # lite0 has made plan and parts
    assert {"numpy", "PIL", "onnxruntime"} <= modules
    assert not modules & HEAVY


def test_what_needs_torch_imports_it_but_not_torchvision() -> None:
    modules = imported("classify", str(ROOT / "sample_images/coffee.png"), "--backend", "torch")
    assert "torch" in modules and "torchvision" not in modules


def test_the_changelog_knows_the_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == fcnconv.__version__
