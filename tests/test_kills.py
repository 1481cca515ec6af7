"""A few kills of the real command: see benchmarks/hardening_kills.py, which does a hundred of each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_network import Tiny

from fcnconv.writers import WRITERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    place = importlib.util.spec_from_file_location("kills", ROOT / "benchmarks/hardening_kills.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    sys.modules["kills"] = module  # its dataclass looks for it there
    place.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("lite0")
@pytest.mark.parametrize("suffix", ["npy", pytest.param("zarr", marks=pytest.mark.slow)])
def test_a_killed_map_leaves_nothing_that_looks_finished(suffix: str, kills: ModuleType) -> None:
    if needs := WRITERS[suffix].needs:
        pytest.importorskip(needs[0])
    found = kills.kill(suffix, 4, seed=1, each=4)
    assert (found.losses, found.stayed) == ([], [])
    assert found.kills > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_killed_plan_leaves_nothing_that_looks_finished(
    kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    tiny = tmp_path / "tiny.onnx"
    torch.onnx.export(Tiny().eval(), (torch.zeros(1, 3, 32, 32),), str(tiny), dynamo=False)
    model = ["-m", str(tiny), "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    kills.CASES["tiny"] = lambda scratch: kills.Prepare(scratch, *model)
    found = kills.kill("tiny", 4, seed=1, each=4)
    assert (found.losses, found.stayed) == ([], []) and found.kills > 0
