"""OpenVINO, above all in bfloat16: measured, told, kept, and never silently something else."""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES, Command, needs_openvino

from fcnconv import load
from fcnconv.api.loading import open_classifier
from fcnconv.backends import faster_precision, open_network
from fcnconv.backends import openvino as backend
from fcnconv.errors import PlanError, UsageError
from fcnconv.models import ModelSpec
from fcnconv.options import NetworkOptions
from fcnconv.provenance import FLOAT32, Mode
from fcnconv.scan.network import Needs
from fcnconv.system.machine import has_bfloat16
from fcnconv.system.records import sealed, unsealed

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")

IMAGE = SAMPLES / "camera.png"


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@needs_bfloat16
@pytest.mark.parametrize("mode", ["fcn", "windows"])
def test_bfloat16_is_near_float32_and_says_how_near(spec: ModelSpec, mode: Mode) -> None:
    network = open_network(spec, mode, precision="bfloat16")
    x = pictures(2, 3, 72, 96)
    expected, found = open_network(spec, mode).run(x), network.run(x)
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert found.shape == expected.shape and found.dtype == np.float32
    assert network.arithmetic.number == "bfloat16"
    assert 1e-5 < off < 4 * network.arithmetic.error < 4 * backend.TOLERANCE["bfloat16"]


@needs_bfloat16
def test_the_parts_compute_in_bfloat16_too(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcnconv.convert.partition.BLOCK_MEMORY", 2e4)
    for _ in range(2):  # made, then read
        parts = open_network(spec, precision="bfloat16").stages.cut()
        x = image = pictures(1, 3, 96, 96)
        for part in parts:
            x = part.run(x)
        whole = open_network(spec).run(image)
        assert len(parts) > 1
        assert 1e-5 < np.abs(x - whole).max() / np.abs(whole).max() < backend.TOLERANCE["bfloat16"]


@needs_bfloat16
def test_what_was_measured_is_kept_until_something_changes(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_network(spec, precision="bfloat16").arithmetic
    (path,) = Path(spec.weights()).parent.glob("cache/fcnconv/plans/*.json")
    measure, measured = backend._measure, []

    def counting(*args: object) -> backend.Measured:
        measured.append(args)
        return measure(*args)

    monkeypatch.setattr(backend, "_measure", counting)
    assert open_network(spec, precision="bfloat16").arithmetic == first and not measured
    good = path.read_text()
    older = sealed(unsealed(good) | {"on": unsealed(good)["on"].replace("OpenVINO 2", "OpenVINO 1")})
    altered = good.replace("OpenVINO 2", "OpenVINO 1")
    for other in ("", "{", good[:-9], json.dumps({"error": 0}), sealed({"error": 0}), older, altered):
        assert other != good
        path.write_text(other)
        again = open_network(spec, precision="bfloat16").arithmetic
        assert again.error == pytest.approx(first.error) and len(measured) == 1
        assert unsealed(path.read_text())["on"] == unsealed(good)["on"]
        measured.clear()


@needs_openvino
def test_a_processor_without_bfloat16_takes_float32_and_says_so(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "has_bfloat16", lambda: False)
    assert open_network(spec, precision="bfloat16").arithmetic == FLOAT32
    assert "this processor has no native bfloat16; using float32" in caplog.text


@needs_bfloat16
def test_what_would_be_too_far_off_is_float32(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(backend.TOLERANCE, "bfloat16", 1e-6)
    network, x = open_network(spec, precision="bfloat16"), pictures(1, 3, 64, 64)
    assert network.arithmetic == FLOAT32
    assert "float32, as bfloat16 changes logits of tiny by" in caplog.text
    assert np.abs(network.run(x) - open_network(spec).run(x)).max() < 1e-5
    assert faster_precision(spec, NetworkOptions()) is None
    monkeypatch.setitem(backend.TOLERANCE, "float32", -1.0)
    with pytest.raises(PlanError, match="OpenVINO computes other scores than the network"):
        open_network(spec, backend="openvino")


@needs_bfloat16
def test_threads_do_not_mix_their_answers(spec: ModelSpec) -> None:
    run = open_network(spec, precision="bfloat16").run
    images = [pictures(1, 3, 32 + 8 * n, 64) for n in range(12)]
    alone = [run(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(run, images * 3), alone * 3, strict=True):
            assert np.array_equal(found, expected)


def test_without_openvino_one_line_names_its_package(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"needs OpenVINO: pip install 'fcnconv\[openvino\]'"):
        open_network(spec, precision="bfloat16")
    with pytest.raises(UsageError, match="float32; for --precision bfloat16 use --backend openvino"):
        open_network(spec, backend="onnx", precision="bfloat16")
    with pytest.raises(UsageError, match="for --device cuda use --backend torch"):
        open_network(spec, backend="openvino", device="cuda")


@needs_openvino
def test_a_faster_precision_is_told_where_none_was_chosen(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = backend.Measured("here", 0.0123, 2.04, 0.1, 0.5)
    monkeypatch.setattr(backend, "in_bfloat16", lambda *_: found)
    told = faster_precision(spec, NetworkOptions())
    assert told is not None and "2.0 times as fast here; its logits differ by up to 1.2e-02" in told
    for chosen in (
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"backend": "torch"},
        {"backend": "openvino"},
        {"device": "cuda"},
    ):
        assert faster_precision(spec, NetworkOptions(**chosen)) is None  # type: ignore[arg-type]
    monkeypatch.setattr(backend, "in_bfloat16", lambda *_: backend.Measured("here", 0.0123, 1.1, 0.1, 0.5))
    assert faster_precision(spec, NetworkOptions()) is None


@needs_bfloat16
def test_a_map_says_in_what_it_was_computed(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "fcnconv")
    classifier = open_classifier(spec, NetworkOptions(precision="bfloat16"))
    error = classifier.provenance.arithmetic.error
    assert f"computed in bfloat16: logits differ from float32 by up to {error:.1e}" in caplog.text
    out = tmp_path / "map.npz"
    classifier(IMAGE, anchors=0).save(out)
    with np.load(out) as kept:
        record = json.loads(str(kept["provenance"])) if "provenance" in kept else dict(kept)
        assert str(record["precision"]) == "bfloat16" and float(record["precision_error"]) == error


@needs_bfloat16
def test_lite0_in_bfloat16_names_what_it_names_in_float32(lite0, fcnconv: Command) -> None:
    own, half = lite0(IMAGE, anchors=0), load(precision="bfloat16")(IMAGE, anchors=0)
    same = own.logits.argmax(2) == half.logits.argmax(2)
    assert same.mean() >= 0.9 and not np.array_equal(own.logits, half.logits)
    told = fcnconv("heatmap", IMAGE, "--dry-run", "-o", "map.npz")
    assert told.returncode == 0
    run = fcnconv("heatmap", IMAGE, "--precision", "bfloat16", "-o", "-", "-f", "json", "-k", "1")
    assert run.returncode == 0 and b"computed in bfloat16" in run.stderr
    assert json.loads(run.stdout)["precision"] == "bfloat16"


def pretend(monkeypatch: pytest.MonkeyPatch, **found: float) -> list[object]:
    """Replaces the measurement. Returns the list of its calls."""
    calls: list[object] = []

    def measure(plan: object, started: object, spec: object, on: str) -> backend.Measured:
        calls.append(plan)
        return backend.Measured(on, **{"error": 0.0, "faster": 1.25, "seconds": 0.1, "start": 4.0} | found)

    monkeypatch.setattr(backend, "_measure", measure)
    return calls


@needs_openvino
def test_many_images_run_on_the_faster_backend(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = pretend(monkeypatch)  # 20 ms for each image: 4 s pay from 200 images on
    for images, expected in ((0, "onnx"), (99, "onnx"), (199, "onnx"), (201, "openvino")):
        network = open_network(spec, needs=Needs(images=images))
        assert network.backend == network.provenance.backend == expected
        assert len(measured) == (images >= 100)  # few images are not worth the measurement
    x = pictures(1, 3, 64, 96)
    expected_logits = open_network(spec, backend="onnx").run(x)
    np.testing.assert_allclose(network.run(x), expected_logits, rtol=1e-4, atol=1e-5)
    for chosen in ("onnx", "torch"):
        assert open_network(spec, backend=chosen, needs=Needs(images=10**6)).backend == chosen


@needs_openvino
@pytest.mark.parametrize("found", [{"faster": 0.9}, {"error": 0.1}, {"start": 1e6}])
def test_a_backend_that_does_not_pay_is_left_out(
    found: dict[str, float], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, **found)
    assert open_network(spec, needs=Needs(images=10_000)).backend == "onnx"


def test_without_openvino_nothing_is_measured(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    measured = pretend(monkeypatch)
    assert open_network(spec, needs=Needs(images=10_000)).backend == "onnx" and not measured
    assert backend.in_float32(spec, "fcn", None) is None


@needs_openvino
def test_a_batch_says_how_many_images_it_has(
    fcnconv: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def opened(*arguments: object) -> None:
        counted.append(arguments[-1])  # type: ignore[arg-type]
        raise PlanError("enough")

    monkeypatch.setattr("fcnconv.batch.job.open_classifier", opened)
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    out = tmp_path / "maps"
    fcnconv("batch", tmp_path, "-o", out)
    fcnconv("batch", tmp_path, "-o", out, "--backend", "onnx")
    fcnconv("batch", "--files-from", "-", "-o", out, stdin=b"a.jpg\n")
    assert counted == [3, 0, 0]


@needs_openvino
def test_doctor_lists_what_was_measured(
    spec: ModelSpec, fcnconv: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    backend.in_float32(spec, "fcn", None)
    listed = [
        line for line in fcnconv("doctor").stdout.decode().splitlines() if line.startswith("measured\t")
    ]
    assert len(listed) == 1 and "OpenVINO in float32 takes 0.80 of the time" in listed[0]
