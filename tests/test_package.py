"""What the package promises as a whole: its public names, what it imports, its version."""

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from patience import PATIENCE

import fcnconv

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there() -> None:
    assert dir(fcnconv) == fcnconv.__all__ == sorted(fcnconv.__all__, key=lambda name: (name.islower(), name))
    for name in fcnconv.__all__:
        assert getattr(fcnconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fcnconv.nothing  # noqa: B018


def modules_of(package: Path) -> dict[str, Path]:
    """The dotted name of each file of a package, its own first; a folder's is that of its ``__init__.py``."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(package: Path) -> dict[str, set[str]]:
    """What each file of a package imports of its others: at its top, inside functions, for types only.

    The package's own ``__init__.py`` is a target only, as it names modules of all levels; ``__main__.py`` is
    left out.
    """
    modules = modules_of(package)
    modules.pop(f"{package.name}.__main__", None)
    found: dict[str, set[str]] = {}
    for module, file in modules.items():
        if module == package.name:
            continue
        home = module if file.name == "__init__.py" else module.rpartition(".")[0]
        found[module] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                up = home.rsplit(".", node.level - 1)[0] if node.level else ""
                source = ".".join(filter(None, (up, node.module)))
                names = [
                    name if (name := f"{source}.{alias.name}") in modules else source for alias in node.names
                ]
            found[module].update(name for name in names if name in modules)
    return found


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same of the files and folders at the first level."""
    found: dict[str, set[str]] = {}
    for module, names in graph.items():
        room = module.split(".")[1]
        found.setdefault(room, set()).update({name.split(".")[1] for name in names if "." in name} - {room})
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports(ROOT / "fcnconv")


def test_imports_go_down_only(graph: dict[str, set[str]]) -> None:
    assert len(graph) > 60 and "fcnconv.scan.plan" in graph["fcnconv.api.classifier"]
    assert list(TopologicalSorter(graph).static_order()), "a cycle is an error of its own"
    assert list(TopologicalSorter(rooms(graph)).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter(rooms(graph | {"fcnconv.errors": {"fcnconv.cli.app"}})).static_order())
    above = {name for name in graph if name.startswith("fcnconv.cli")}
    below = {name: names & above for name, names in graph.items() if name not in above}
    assert not any(below.values()), {name: names for name, names in below.items() if names}


def test_the_page_on_architecture_lists_each_folder_above_what_it_imports(graph: dict[str, set[str]]) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Folders, from top to bottom")[2].partition("##")[0]
    level = {
        name.rstrip("/").removesuffix(".py"): number
        for number, line in enumerate(re.findall(r"^    (.*?) {3,}", table, re.M))
        for name in line.split()
    }
    assert level.keys() == rooms(graph).keys()
    for room, names in rooms(graph).items():
        assert not [name for name in names if level[name] <= level[room]], room


def importers_of(package: str, graph: dict[str, set[str]]) -> set[str]:
    """The files that import a package itself, which stands above all of them."""
    return {module for module, names in graph.items() if package in names}


def test_no_module_imports_the_package_itself(graph: dict[str, set[str]]) -> None:
    assert not importers_of("fcnconv", graph), "the version is in fcnconv.version"


@pytest.mark.parametrize(
    "line",
    ["from made import NAME", "from . import NAME", "import made", "def f():\n    from made import NAME"],
)
def test_an_import_of_the_package_itself_is_found(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "__init__.py").write_text("NAME = 1")
    (folder / "a.py").write_text("from made import b\nfrom . import b\nfrom made.b import B")
    (folder / "b.py").write_text("")
    assert not importers_of("made", imports(folder))
    (folder / "b.py").write_text(line)
    assert importers_of("made", imports(folder)) == {"made.b"}


CIRCLES = {
    "at the top": ("from made.low.b import B", "from made.low.a import A"),
    "inside a function": ("from made.low.b import B", "def f():\n    from made.low.a import A"),
    "for types only": ("from made.low.b import B", "if TYPE_CHECKING:\n    from made.low.a import A"),
    "of a module": ("from made.low import b", "import made.low.a"),
    "by dots": ("from .b import B", "from . import a"),
    "with its folder": ("from made.low import LOW", ""),
    "of itself": ("import made.low.a", ""),
}


@pytest.mark.parametrize("way", CIRCLES)
def test_an_import_that_goes_up_is_found(way: str, tmp_path: Path) -> None:
    first, second = CIRCLES[way]
    folder = tmp_path / "made" / "low"
    folder.mkdir(parents=True)
    for path, text in (
        (folder.parent / "__init__.py", "from made.low.a import A"),
        (folder / "__init__.py", "def f():\n    from made.low.a import A"),
        (folder / "a.py", "from made.low.b import B"),
        (folder / "b.py", ""),
    ):
        path.write_text(text)
    assert next(iter(TopologicalSorter(imports(folder.parent)).static_order())) == "made.low.b"
    (folder / "a.py").write_text(first)
    (folder / "b.py").write_text(second)
    with pytest.raises(CycleError):
        list(TopologicalSorter(imports(folder.parent)).static_order())


def imported(*arguments: str) -> set[str]:
    """What a fresh process of the command imports, see `imported_by`."""
    return imported_by([arguments])


def imported_by(lines: Sequence[Sequence[str]]) -> set[str]:
    """The packages that a fresh process imports which runs these commands, one after another; of fcnconv, all
    modules.
    """
    code = (
        "import sys; from contextlib import suppress; import fcnconv.cli.app as app\n"
        "app.end_process = sys.exit\n"
        f"for words in {[list(words) for words in lines]!r}:\n"
        "    sys.argv = ['fcnconv', *words]\n"
        "    with suppress(SystemExit): app.main()\n"
        "modules = {name if name.startswith('fcnconv') else name.split('.')[0] for name in sys.modules}\n"
        "print('\\n', *modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    return set(done.stderr.splitlines()[-1].split())


def test_what_needs_no_network_imports_no_torch() -> None:
    first = ["--version"], ["--help"], ["classify", "--help"], ["classify", "--no-such"]
    for lines, libraries in ((first, {"numpy"}), ([["heatmap", "x.jpg"]], set())):
        modules = imported_by(lines)
        assert "fcnconv" in modules
        assert not modules & {"torch", "torchvision", "onnxruntime", "openvino", *libraries}


HEAVY = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "timm",
    "matplotlib",
    "scipy",
    "pandas",
    "pillow_heif",
    "pillow_jxl",
    "pydantic",  # a right command line is read without it
    "rich",
    "sympy",
}


OF_MAPS = {
    "fcnconv.api.maps",
    "fcnconv.scan.correction",
    "fcnconv.scan.focus",
    "fcnconv.scan.multiscale",
    "fcnconv.scan.roi.region",
    "fcnconv.writers",
}


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "-k", "3", "--json", "--scales", "1"],
        ["heatmap", "-o", "{folder}/map.npz", "--mode", "windows", "-q", "--region", "0,0,300,300"],
        ["heatmap", "-o", "{folder}/map.npz", "--scales", "4", "--max-memory", "450MB"],
        ["heatmap", "--dry-run", "--scales", "4", "--max-memory", "450MB"],
    ],
)
def test_a_run_on_a_plan_imports_little(command: list[str], lite0, tmp_path: Path) -> None:
    assert lite0.network.stages.cut() and lite0.open_crops()
    arguments = [part.format(folder=tmp_path) for part in command]
    modules = imported(*arguments, str(ROOT / "sample_images/coffee.png"))  # lite0 has made plan and parts
    assert {"numpy", "PIL", "onnxruntime"} <= modules
    assert not modules & HEAVY
    assert bool(modules & OF_MAPS) == (command[0] == "heatmap")


def test_a_model_of_ones_own_starts_without_torch_once_it_has_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does ONNX Runtime keep, for its makers, how it is used."""
    import torch
    from ordinary import ordinary

    from fcnconv.models.torchvision import make_network

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    torch.manual_seed(0)
    model = ordinary(make_network("squeezenet1_1", 64, num_classes=7), 64)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    arguments = ["classify", str(ROOT / "sample_images/coffee.png"), "-m", str(tmp_path / "w.pth")]
    arguments += ["--arch", "squeezenet1_1", "--window", "64"]
    assert {"torch", "torchvision"} <= imported(*arguments)
    assert not imported(*arguments) & HEAVY
    (tmp_path / "names.txt").write_text("\n".join("abcdefg"))
    assert not imported(*arguments, "--categories", str(tmp_path / "names.txt")) & HEAVY
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == ["fcnconv"]


def test_onnx_runtime_is_imported_where_its_telemetry_is_turned_off() -> None:
    for_types = "if TYPE_CHECKING:\n    from onnxruntime import"
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "fcnconv").rglob("*.py")}
    importing = re.compile(r"^ *(import|from) onnxruntime", re.M)
    found = {name for name, text in texts.items() if importing.search(text.replace(for_types, ""))}
    assert found == {"onnx_runtime.py"}


def test_timms_networks_start_without_timm_once_they_have_a_plan(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    import torch
    from ordinary import ordinary

    torch.manual_seed(0)
    torch.save(ordinary(timm.create_model("resnet10t", num_classes=3), 64).state_dict(), tmp_path / "w.pth")
    arguments = ["classify", str(ROOT / "sample_images/coffee.png"), "-m", str(tmp_path / "w.pth")]
    arguments += ["--arch", "timm/resnet10t", "--window", "64"]
    assert "timm" in imported(*arguments)
    assert not imported(*arguments) & HEAVY


def test_what_needs_torch_imports_it_but_not_torchvision() -> None:
    few = ["--mode", "windows", "--scales", "0.6"]
    modules = imported("classify", str(ROOT / "sample_images/coffee.png"), "--backend", "torch", *few)
    assert "torch" in modules and "torchvision" not in modules


def test_the_changelog_knows_the_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[0] == fcnconv.__version__
