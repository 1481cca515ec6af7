"""Ray as the engine of a batch, as it is started on this machine: the same answers as of one process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command, make_photos
from patience import PATIENCE
from PIL import Image

pytest.importorskip("ray.data")

PLAIN = ["--anchors", "0", "--scales", "0.6"]
RAY = ["--engine", "ray", "--workers", "2"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 photos, all different, and a text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    make_photos(folder, 12)
    (folder / "text.png").write_text("no image")
    return folder


def answers(out: str, suffix: str) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob(f"*.{suffix}"))}


def listening(pids: set[int]) -> set[str]:
    """The addresses, in hexadecimal, at which processes wait for others."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A":
                sockets[columns[9]] = columns[1].partition(":")[0]
    found = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                name = os.readlink(link)  # noqa: PTH115 - it is no path
            except OSError:
                continue
            if match := re.fullmatch(r"socket:\[(\d+)\]", name):
                found.add(sockets.get(match[1], ""))
    return found - {""}


def family(root: int) -> dict[int, str]:
    """A process and all that it started, with their command lines."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
            parents[pid], names[pid] = parent, stat.with_name("cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError, IndexError):
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names.get(pid, "") for pid in found}


@pytest.mark.slow
def test_the_answers_are_those_of_one_process_also_where_workers_are_killed(
    fcnconv: Command, photos: Path
) -> None:
    local = fcnconv("batch", "photos", "-o", "local", "-f", "npz", *PLAIN)
    command = [sys.executable, "-m", "fcnconv", "batch", "photos", "-o", "maps", "-f", "npz", *PLAIN, *RAY]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    killed = 0
    addresses: set[str] = set()
    while process.poll() is None and killed < 2:
        time.sleep(0.05)
        if len(list(Path("maps").rglob("*.npz"))) > 4 * killed:
            kin = family(process.pid)
            addresses |= listening(set(kin))
            workers = [pid for pid, name in kin.items() if name.startswith("ray::MapWorker")]
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                killed += 1
    out, said = process.communicate(timeout=PATIENCE)
    assert killed == 2 and process.returncode == 1, said
    assert answers("maps", "npz") == answers("local", "npz") and len(answers("maps", "npz")) == 12
    told = [json.loads(line) for line in out.splitlines()]
    assert sorted(line["path"] for line in told) == sorted(map(str, Path("photos").iterdir()))
    assert said.splitlines()[-1].endswith(b", 1 failed") and local.returncode == 1
    assert Path("maps/failures.jsonl").read_text() == Path("local/failures.jsonl").read_text()
    assert not [path for path in Path("maps").rglob(".*") if path.is_file()]
    assert addresses and all(address.endswith("0100007F") for address in addresses), addresses  # loopback
    assert b"Traceback" not in said
    assert (
        Path("maps/fcnconv.json").read_text().partition('"since"')[0]
        == (Path("local/fcnconv.json").read_text().partition('"since"')[0])
    )


HUGE = """
from fcnconv.batch.cluster import Cluster, ray_engine
from fcnconv.batch.inputs import from_paths
from fcnconv.batch.job import Job
from fcnconv.batch.runs import BatchRun
from fcnconv.models import OwnModel
from fcnconv.options import NetworkOptions, OutputOptions, ReadOptions, ScanOptions

options = NetworkOptions(), ReadOptions(max_memory=1.2e9), ScanOptions(refine=0.1), OutputOptions()
job = Job("efficientnet_lite0", OwnModel(), *options, "many", "npz", False, (1, 1))
with ray_engine(job, Cluster(workers=2, huge=1)) as engine:
    for name, made in BatchRun(job.open(), engine)(from_paths(["photos/large.png"])):
        print(name, made)
"""


@pytest.mark.slow
def test_what_is_packed_comes_together_and_a_huge_image_is_worked_on_by_all(
    fcnconv: Command, photos: Path
) -> None:
    """In Parquet the rows of all workers; of a huge image, as here each is, the map of one process."""
    done = fcnconv("batch", "photos", "-o", "table", "-f", "parquet", "-k", "2", *RAY)
    assert done.returncode == 1 and done.stdout == 12 * b"table/answers-1-of-1-00000.parquet\n", done.stderr
    assert fcnconv("batch", "photos", "-o", "local", "-f", "parquet", "-k", "2").returncode == 1
    pq = pytest.importorskip("pyarrow.parquet")
    tables = [pq.read_table(f"{out}/answers-1-of-1-00000.parquet") for out in ("table", "local")]
    assert tables[0].equals(tables[1])
    for path in list(photos.iterdir())[2:]:
        path.unlink()
    with Image.open(SAMPLES / "collage.jpg") as photo:
        photo.resize((1600, 1000)).save(photos / "large.png", compress_level=1)
    options = ["photos/large.png", "-f", "npz", "--max-memory", "1200MB", "--refine", "0.1"]
    assert fcnconv("batch", *options, "-o", "one").returncode == 0
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and b"photos/large.png Outcome(" in done.stdout, done.stderr
    one, many = (np.load(f"{out}/photos/large.png.npz") for out in ("one", "many"))
    assert set(one) == set(many)
    for name in one:
        assert np.array_equal(one[name], many[name]), name


def test_without_ray_and_without_a_cluster_a_line_says_so(
    fcnconv_process: Command, photos: Path, tmp_path: Path
) -> None:
    done = fcnconv_process("batch", "photos", "-o", "maps", "--engine", "ray", "--address", "127.0.0.1:9")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"fcnconv: Ray cannot be reached at 127.0.0.1:9" in done.stderr
    (tmp_path / "without/ray").mkdir(parents=True)
    (tmp_path / "without/ray/__init__.py").write_text("raise ImportError('none')")
    without = {"PYTHONPATH": str(tmp_path / "without")}
    done = fcnconv_process("batch", "photos", "-o", "maps", "--engine", "ray", **without)
    assert done.returncode == 2 and b"pip install 'fcnconv[ray]'" in done.stderr
    shutil.rmtree(tmp_path / "without")
