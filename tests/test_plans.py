"""Plans: made once, equal to torch, mended when damaged, never in the way of an answer."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import SAMPLES, Command, needs_openvino
from tiny_network import Tiny
from torch import nn

import fcnconv.convert as making_networks
from fcnconv.api.loading import open_classifier
from fcnconv.api.maps import ScoreMap
from fcnconv.backends import BACKENDS, build_plan, onnx, open_network
from fcnconv.backends.build_plan import prove_export
from fcnconv.backends.onnx import one_go, onnx_run, open_plan
from fcnconv.backends.plans import plan_path, read_plan, stage_record
from fcnconv.convert.onnx_export import export_onnx, export_part
from fcnconv.errors import ModelError, PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.options import Backend, NetworkOptions, Precision, ReadOptions, ScanOptions
from fcnconv.provenance import Mode
from fcnconv.scan.network import Network
from fcnconv.scan.stages import PixelCells, chain
from fcnconv.system.leftovers import beside
from fcnconv.system.records import cache_path


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@needs_openvino
@pytest.mark.parametrize("mode", ["fcn", "windows"])
def test_every_backend_gives_the_same_logits(spec: ModelSpec, mode: str) -> None:
    x = pictures(2, 3, 72, 96)
    networks = {name: open_network(spec, mode, name, "cpu") for name in BACKENDS}
    logits = {name: network.run(x) for name, network in networks.items()}
    oracle = logits.pop("torch")
    assert np.ptp(oracle) > 0.1
    for name, found in logits.items():
        assert networks[name].geometry == networks["torch"].geometry
        assert networks[name].identity == networks["torch"].identity
        assert found.shape == oracle.shape and found.dtype == np.float32
        assert np.abs(found - oracle).max() <= 1e-4 * np.abs(oracle).max()


def in_stages(network: Network, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """The logits of pixels in blocks of two cells, and in one run."""
    monkeypatch.setattr("fcnconv.convert.partition.BLOCK_MEMORY", 2e4)
    x, (rows, cols) = pictures(1, 3, 32 + 9 * 4, 32 + 13 * 4), (9, 13)
    assert network.geometry.step == 4
    parts = network.stages.cut()
    assert len(parts) > 1
    image = PixelCells(lambda box: np.ascontiguousarray(x[:, :, box[1] : box[3], box[0] : box[2]]), 32, 4)
    rects = [(slice(y, y + 2), slice(x, x + 2)) for y in range(0, 10, 2) for x in range(0, 14, 2)]
    top = chain(image, parts, [(2, 2)] * len(parts), (rows, cols), rects)
    blocks = [[top.compute(y, y + 2, x, x + 2) for x in range(0, 14, 2)] for y in range(0, 10, 2)]
    return np.concatenate([np.concatenate(row, 2) for row in blocks], 1), network.run(x)[0]


@needs_openvino
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_parts_of_a_network_give_the_logits_of_the_whole(
    spec: ModelSpec, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, expected = in_stages(open_network(spec, "fcn", backend, "cpu"), monkeypatch)
    assert found.shape == expected.shape and np.ptp(expected) > 0.1
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("broken", ["fails", "wrong", "shapes"])
def test_parts_that_cannot_be_exported_run_on_torch(
    spec: ModelSpec, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def export(part: nn.Module, channels: int, side: int) -> bytes:
        if broken == "fails":
            raise PlanError("no such operation")
        layer = nn.Conv2d(channels, 16, 1) if broken == "wrong" else nn.Conv2d(channels, channels, 5)
        return export_part(layer, channels, side)

    monkeypatch.setattr("fcnconv.backends.build_plan.export_part", export)
    with caplog.at_level(logging.INFO, "fcnconv"):
        found, expected = in_stages(open_network(spec, "fcn", "onnx", "cpu"), monkeypatch)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert "running the stages with torch instead" in caplog.text


def test_parts_are_kept_and_made_again_when_damaged(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fcnconv.convert.partition.BLOCK_MEMORY", 2e4)
    made = open_network(spec, "fcn", "onnx").stages
    kept = made.cut()
    (path,) = plan_path(spec, "fcn", spec.sha256(spec.weights())).parent.glob("*.parts")
    with monkeypatch.context() as patch:
        patch.setattr("fcnconv.backends.build_plan.cut_plan", None)  # nothing is made while they are sound
        read = open_network(spec, "fcn", "onnx").stages
        assert list(map(stage_record, read.cut())) == list(map(stage_record, kept))
        assert stage_record(read.whole) == stage_record(made.whole)
        found, expected = in_stages(open_network(spec, "fcn", "onnx"), patch)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data.replace(b"pixels", b"pixxls", 1)):
        path.write_bytes(damaged)
        with caplog.at_level(logging.INFO, "fcnconv"):
            open_network(spec, "fcn", "onnx").stages.cut()
        assert "the stages are damaged" in caplog.text and path.read_bytes() != damaged
        caplog.clear()


def test_the_plan_of_lite0_equals_torch_on_a_larger_image(lite0, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcnconv import load

    image = np.random.default_rng(1).integers(0, 256, (300, 420, 3), np.uint8)
    found, oracle = (load(backend=name, device="cpu")(image).logits for name in ("onnx", "torch"))
    assert np.abs(found - oracle).max() <= 1e-4 * np.abs(oracle).max()


def test_tiles_on_a_plan_equal_the_whole(spec: ModelSpec) -> None:
    network = open_network(spec, "fcn", "onnx")
    stride, halo = network.geometry.stride, network.geometry.halo
    x = pictures(1, 3, 96, 96)
    first = 8 * stride
    part = network.run(np.ascontiguousarray(x[:, :, first - halo :]))
    np.testing.assert_allclose(part[:, :, halo // stride :], network.run(x)[:, :, 8:], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_the_second_image_of_a_size_takes_no_more_memory_than_the_first(spec: ModelSpec) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    run, image = open_network(spec, "fcn", "onnx", "cpu").run, pictures(1, 3, 1536, 1536)
    run(image)
    before = resident()
    run(image)
    assert resident() - before < 5e6  # its largest feature map has 19 MB


def test_all_plans_of_a_map_are_made_in_one_go(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    conversions = []
    convert = making_networks.convolutionize
    monkeypatch.setattr(
        making_networks, "convolutionize", lambda *args: conversions.append(args) or convert(*args)
    )
    maps = ScanOptions(map="focused", anchors=4)
    classifier = open_classifier(spec, NetworkOptions(stride=4), scan=maps)
    first, made = (record.getMessage() for record in caplog.records)
    assert first == "Preparing tiny, stride 4 px (first use only) …" and made.startswith("prepared in")
    assert len(conversions) == 1
    assert len(list((cache_path() / "plans").glob("*.onnx"))) == 3

    def too_late(*args: object, **kwargs: object) -> bytes:
        raise AssertionError("a plan is made after the scan began")

    monkeypatch.setattr(build_plan, "make_plan", too_late)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    ScoreMap.collect(classifier.stream(noise, maps))
    ScoreMap.collect(open_classifier(spec, NetworkOptions(stride=4), scan=maps).stream(noise, maps))
    assert not [record for record in caplog.records if "Preparing" in record.getMessage()][1:]


def test_stages_that_the_first_scan_needs_are_made_in_the_same_go(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    with one_go():
        classifier = open_classifier(spec, reading=ReadOptions(max_memory=1e6))
        stream = classifier.stream(noise)
    assert len(list((cache_path() / "plans").glob("*.parts"))) == 1
    first, made = (record.getMessage() for record in caplog.records)
    assert first.startswith("Preparing tiny") and made.startswith("prepared in")
    assert ScoreMap.collect(stream).logits.shape[0] > 100


@pytest.mark.parametrize("missing", ["activations", "crops"])
def test_what_alone_is_missing_is_named(
    missing: str, spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    open_classifier(spec)
    caplog.set_level(logging.INFO, "fcnconv")
    caplog.clear()
    maps = ScanOptions(map="focused") if missing == "activations" else ScanOptions(refine=0.1)
    open_classifier(spec, NetworkOptions(), scan=maps)
    making, _ = (record.getMessage() for record in caplog.records)
    assert missing in making and "(first use only)" in making


COMMANDS_AND_PLANS = {
    "heatmap": (["--anchors", "4", "--stride", "16", "-o", "map.png"], 3),
    "locate": ([], 2),
    "verify": (["--max-windows", "8"], 2),
}


@pytest.mark.parametrize("command", COMMANDS_AND_PLANS)
def test_a_command_prepares_once(command: str, fcnconv: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    options, plans = COMMANDS_AND_PLANS[command]
    model = ["-m", "w.pth", "--arch", "squeezenet1_1", "--window", "64"]
    done = fcnconv(
        command,
        *(SAMPLES / "coffee.png", *model, *options),
        cwd=tmp_path,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    (first,) = (n for n, line in enumerate(lines) if "Preparing" in line)
    assert lines[first + 1].startswith("fcnconv: prepared in")
    assert len(list((tmp_path / "cache" / "fcnconv" / "plans").glob("*.onnx"))) == plans


def test_a_plan_is_made_once_and_told_once(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    first = open_plan(spec, "fcn")
    written = first.path.stat().st_mtime_ns
    making, made = (record.getMessage() for record in caplog.records)
    assert making == "Preparing tiny (first use only) …"
    assert re.fullmatch(r"prepared in \d+\.\d s", made) and 0 < first.record.seconds < 600
    second = open_plan(spec, "fcn")
    assert len(caplog.records) == 2 and second.path.stat().st_mtime_ns == written
    assert second.record == first.record
    assert 0 <= first.record.export_error <= 1e-4
    files = sorted(first.path.parent.iterdir())
    fitted, plan = (file for file in files if file.suffix != ".json")
    assert plan == first.path and fitted.name.startswith(f"{plan.stem}.") and fitted.suffix == ".optimised"
    assert {file.with_suffix(".json") for file in (fitted, plan)} == set(files) - {fitted, plan}


def test_plans_of_different_things_have_different_names(spec: ModelSpec) -> None:
    from dataclasses import replace

    paths = {
        plan_path(spec, "fcn", "a"),
        plan_path(spec, "windows", "a"),
        plan_path(spec, "fcn", "b"),
        plan_path(replace(spec, arch="other"), "fcn", "a"),
        plan_path(replace(spec, window=64), "fcn", "a"),
    }
    assert len(paths) == 5
    assert plan_path(replace(spec, name="../../a b/ç.pth"), "fcn", "a").parent == next(iter(paths)).parent


def damage_nothing_left(path: Path) -> None:
    path.write_bytes(b"")


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_one_weight(path: Path) -> None:
    """Changes one bit of a weight, which ONNX Runtime cannot notice."""
    data = bytearray(path.read_bytes())
    weight = Tiny().classifier.bias.detach().numpy().tobytes()
    at = bytes(data).index(weight[:16])
    data[at] ^= 1
    path.write_bytes(data)


def damage_record(path: Path) -> None:
    record = path.with_suffix(".json")
    record.write_bytes(record.read_bytes().replace(b'"stride": 4', b'"stride": 8'))


def damage_record_cut(path: Path) -> None:
    damage_cut(path.with_suffix(".json"))


def damage_no_record(path: Path) -> None:
    path.with_suffix(".json").unlink()


def damage_deep_record(path: Path) -> None:
    """Nested too deeply for Python's reader of JSON."""
    path.with_suffix(".json").write_text("[" * 100_000)


def damage_another_plan(path: Path) -> None:
    """An intact ONNX file, but of another network: that of the classifier's own size."""
    torch.manual_seed(3)
    path.write_bytes(export_onnx(Tiny().eval(), 32, any_size=True))


DAMAGES = [
    *(damage_nothing_left, damage_cut, damage_tail, damage_one_weight, damage_another_plan),
    *(damage_record, damage_record_cut, damage_no_record, damage_deep_record),
]


def contents(folder: Path) -> dict[str, bytes]:
    """The content of each file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__[7:])
def test_a_damaged_plan_is_made_again(spec: ModelSpec, damage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    whole = open_plan(spec, "fcn")
    content = contents(whole.path.parent)
    damage(whole.path)
    assert contents(whole.path.parent) != content
    with pytest.raises(PlanError, match="damaged"):
        read_plan(whole.path, onnx_run)
    (fitted,) = whole.path.parent.glob("*.optimised")
    damage(fitted)
    mended = open_plan(spec, "fcn")
    assert mended.record == whole.record
    assert "making it again" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__[7:])
def test_a_plan_optimised_for_the_processor_is_the_plan(
    spec: ModelSpec, damage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged, or another processor's, it is made from the plan again, which stays as it is."""
    caplog.set_level(logging.INFO, "fcnconv")
    x, plain = pictures(2, 3, 64, 96), read_plan(open_plan(spec, "fcn").path, onnx_run)
    (fitted,) = plain.path.parent.glob("*.optimised")
    sessions: list[object] = []
    real = onnx._session
    monkeypatch.setattr(onnx, "_session", lambda *args, **how: sessions.append(how) or real(*args, **how))
    again = open_plan(spec, "fcn")
    assert again.path == plain.path and again.record == plain.record
    assert [how.get("optimised") for how in sessions] == [True]
    assert np.array_equal(again.run(x), plain.run(x))
    written = plain.path.stat().st_mtime_ns
    damage(fitted)
    assert np.array_equal(open_plan(spec, "fcn").run(x), plain.run(x))
    assert read_plan(fitted, partial(onnx_run, optimised=True)).record == plain.record
    monkeypatch.setattr(onnx, "processor", lambda: "another")
    assert np.array_equal(open_plan(spec, "fcn").run(x), plain.run(x))
    assert len(list(fitted.parent.glob("*.optimised"))) == 2
    assert plain.path.stat().st_mtime_ns == written and "making it again" not in caplog.text


def test_a_full_disk_leaves_nothing_and_torch_answers(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")

    def no_space(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    network = open_network(spec)
    assert network.run(pictures(1, 3, 32, 32)).shape == (1, 5, 1, 1)
    assert "No space left on device); running with torch instead" in caplog.text
    assert list(cache_path().joinpath("plans").iterdir()) == []
    with pytest.raises(PlanError, match="no plan can be stored there"):
        open_network(spec, backend="onnx")


def test_a_cache_that_cannot_be_written_is_told_before_the_work(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    (tmp_path / "cache").write_text("a file, where a folder should be")
    monkeypatch.setattr(build_plan, "make_plan", lambda *_: pytest.fail("exported for nothing"))
    assert open_network(spec).run(pictures(1, 3, 32, 32)).shape == (1, 5, 1, 1)
    assert "running with torch instead" in caplog.text


def test_what_killed_processes_left_is_removed(spec: ModelSpec) -> None:
    """Also of another plan. The rules are tested in test_leftovers.py."""
    plan = plan_path(spec, "fcn", "a")
    plan.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    dead = beside(plan, "tmp").name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    living = beside(plan, "tmp").name
    for name in (dead, living):
        (plan.parent / name).write_bytes(b"half")
    open_plan(spec, "fcn")
    assert not (plan.parent / dead).exists() and (plan.parent / living).exists()


def test_no_plan_is_made_where_the_system_would_end_the_process(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "free_memory", lambda: 280_000_000)
    monkeypatch.setattr(build_plan, "make_plan", lambda *_: pytest.fail("made"))
    with pytest.raises(
        ModelError, match=r"takes 0\.6 GB of memory, and 0\.3 are free; run 'fcnconv prepare'"
    ):
        open_network(spec)
    assert list(plan_path(spec, "fcn", "a").parent.iterdir()) == []


def test_a_network_that_cannot_be_exported_runs_on_torch(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    class Odd(Tiny):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.linalg.svdvals(x[:, 0, :4, :4]).sum()  # ONNX has no such thing

    caplog.set_level(logging.INFO, "fcnconv")
    odd = replace(spec, build=lambda path: Odd().eval())
    assert open_network(odd, "windows").run(pictures(1, 3, 32, 40)).shape == (1, 5, 1, 2)
    assert "cannot be exported to ONNX" in caplog.text


def test_the_proof_refuses_another_network() -> None:
    torch.manual_seed(1)
    model, other = Tiny().eval(), Tiny().eval()
    with torch.no_grad():
        other.classifier.bias += 0.01
    run = onnx_run(export_onnx(other, 32, any_size=False))
    assert prove_export(other, run, 32, any_size=False) < 1e-5
    with pytest.raises(PlanError, match="is not the network"):
        prove_export(model, run, 32, any_size=False)


def test_the_choice_of_backend_and_device_is_checked(spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="unknown backend 'tpu'; known: auto, onnx, openvino, torch"):
        open_network(spec, backend="tpu")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        open_network(spec, device="gpu")
    with pytest.raises(UsageError, match="use --backend torch"):
        open_network(spec, backend="onnx", device="cuda")


@pytest.fixture
def opened(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The (mode, device) of each network that torch opens, on the processor whatever the device."""
    from fcnconv.backends import torch as backend

    asked: list[tuple[str, str]] = []
    real = backend.open_torch

    def open_torch(spec: ModelSpec, mode: Mode, device: str, stride: int | None, *how: Precision) -> Network:
        asked.append((mode, device))
        return real(spec, mode, "cpu", stride, *how)

    monkeypatch.setattr(backend, "open_torch", open_torch)
    return asked


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        ("torch", "cpu", [("fcn", "cpu"), ("windows", "cpu")]),
        ("torch", "cuda:1", [("fcn", "cuda:1"), ("windows", "cuda:1")]),
        ("torch", "auto", [("fcn", "auto"), ("windows", "auto")]),
        ("auto", "cuda", [("fcn", "cuda"), ("windows", "cuda")]),
        ("auto", "mps", [("fcn", "mps"), ("windows", "mps")]),
        ("auto", "auto", []),
        ("auto", "cpu", []),
    ],
)
def test_crops_are_scored_on_the_device_and_backend_that_were_asked_for(
    spec: ModelSpec, opened: list[tuple[str, str]], backend: Backend, device: str, expected: list[object]
) -> None:
    classifier = open_classifier(spec, NetworkOptions(backend=backend, device=device))
    assert classifier.open_crops()(pictures(1, 3, 32, 32)).shape == (1, 5, 1, 1)
    assert opened == expected


def test_a_network_without_a_plan_looks_for_a_gpu(
    spec: ModelSpec, opened: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise PlanError("no such operation")

    monkeypatch.setattr(build_plan, "make_plan", none)
    open_network(spec, device="auto")
    open_network(spec, "windows", device="cpu")
    assert opened == [("fcn", "auto"), ("windows", "cpu")]


def test_a_plan_is_made_for_a_name_and_serves_others(spec: ModelSpec) -> None:
    from dataclasses import replace

    first = open_plan(spec, "fcn")
    other = replace(spec, mean=(0.1, 0.2, 0.3))
    assert open_plan(other, "fcn").record == first.record
    assert first.record.identity.mean == (0.5, 0.5, 0.5)
    assert open_network(other).identity.mean == (0.1, 0.2, 0.3)
    assert first.record.proof and first.record.proof.relative_error <= 1e-9 < first.record.proof.rounding


def test_prepare_prints_the_plan_that_classify_then_uses(fcnconv: Command) -> None:
    done = fcnconv("prepare")
    path = Path(done.stdout.decode().strip())
    assert path.is_relative_to(os.environ["XDG_CACHE_HOME"]) and path.stat().st_size > 15e6
    assert b"proved" in done.stderr and b"its plan took" in done.stderr
    assert fcnconv("classify", SAMPLES / "chelsea.png").stderr == b""
