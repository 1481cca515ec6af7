"""`fcnconv doctor`: what it reports of the installation and the machine, and what it advises."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from commands import Command, run_here
from patience import PATIENCE

from fcnconv.cli import installation
from fcnconv.cli.installation import EXTRAS, Installation, inspect_installation


def machine(root: Path, features: str) -> Path:
    """A root folder of a machine whose processor has these features."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemAvailable: {8 << 20} kB\n")
    (root / "proc/cpuinfo").write_text(f"model name\t: Example 9000\nflags\t\t: fpu {features} sse\n")
    return root


def test_every_extra_for_users_is_explained() -> None:
    names = set(metadata.metadata("fcnconv").get_all("Provides-Extra") or ()) - {"docs", "test", "test-all"}
    assert names == set(EXTRAS), "add new extras to installation.EXTRAS, with what they give"


def test_the_report_names_versions_caches_and_extras(fcnconv: Command, tmp_path: Path) -> None:
    plans = tmp_path / "fcnconv/plans"
    plans.mkdir(parents=True)
    (plans / "a.onnx").write_bytes(bytes(3000))
    done = fcnconv("doctor", "--json", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0 and done.stderr == b""
    record = json.loads(done.stdout)
    assert record["versions"]["torch"] == metadata.version("torch")
    assert record["caches"][0] == {
        "holds": "plans",
        "path": str(plans),
        "files": 1,
        "size": 3000,
        "writable": True,
    }
    assert {extra["name"] for extra in record["extras"]} == set(EXTRAS)
    lines = fcnconv("doctor", XDG_CACHE_HOME=str(tmp_path)).stdout.decode().splitlines()
    assert f"cache\tplans\t{plans}, 1 file, 0.0 MB" in lines
    assert all(line.count("\t") == 2 for line in lines)


def test_an_extra_is_missing_while_one_of_its_packages_is(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=1",
        "nonesuch-a>=2; extra == 'geo'",
        "numpy>=1; extra == 'geo'",
        "numpy; extra == 'zarr'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    found = {extra.name: extra.missing for extra in inspect_installation().extras}
    assert found == {"geo": ("nonesuch-a",), "zarr": ()}


def test_extras_are_unknown_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_requirements", lambda: [])
    assert inspect_installation().extras == ()
    assert b"extra\t\tunknown" in run_here("doctor").stdout


@pytest.mark.parametrize(
    ("features", "found", "advised"),
    [
        ("avx2 amx_bf16 avx512f", ("avx2", "avx512f", "amx_bf16"), "bfloat16"),
        ("avx2 fma", ("avx2", "fma"), None),
        ("sse4_2", (), "AVX2"),
    ],
)
def test_features_of_the_processor_decide_the_advice(
    features: str, found: tuple[str, ...], advised: str | None, tmp_path: Path
) -> None:
    report = inspect_installation(machine(tmp_path, features))
    assert (report.processor, report.features) == ("Example 9000", found)
    about = [line for line in report.advice if "processor " in line and "may be used" not in line]
    assert bool(about) == bool(advised) and all(str(advised) in line for line in about)


def advice(root: Path) -> str:
    return "\n".join(inspect_installation(root).advice)


def test_a_cache_that_cannot_be_written_or_is_empty_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path / "root", "avx2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert "fcnconv prepare" in advice(root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in advice(root)


def test_a_gpu_and_a_limit_on_processors_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine(tmp_path, "avx2")
    assert "GPU" not in advice(root)
    (root / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert "--device cuda" in advice(root)
    monkeypatch.setattr(installation, "usable_cpus", lambda root: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert "2 of 64 processors" in advice(root)


def test_a_system_that_reports_nothing_gives_no_advice_about_its_processor(tmp_path: Path) -> None:
    report: Installation = inspect_installation(tmp_path)
    assert report.features is None and not any("AVX2" in line for line in report.advice)


def test_doctor_takes_no_arguments() -> None:
    done = run_here("doctor", "photo.jpg")
    assert done.returncode == 2 and b"doctor takes no arguments, but got photo.jpg" in done.stderr


def test_doctor_starts_without_the_libraries_that_it_reports() -> None:
    code = (
        "import sys, atexit; sys.argv = ['fcnconv', 'doctor', '--json']; from fcnconv.cli.app import main; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert "fcnconv" in done.stderr and json.loads(done.stdout)
    assert not {"torch", "numpy", "onnxruntime", "rich", "rasterio"} & set(done.stderr.split())
