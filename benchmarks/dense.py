"""The dense map of one image of a given size: time, ratio to ours, peak memory, share of the machine's limit.

    python benchmarks/dense.py 1024 5      (pixels, rounds)

The limit is the time that a matrix product of as many multiplications would take: 0.385 GMAC for each 224².
Peers that are not there are left out: `pip install monai timm openvino`.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec

import peers
from side_by_side import in_turns, matrix_rate, table

GMAC = 0.385
OURS = "fcnconv (plan)"


def packages_of(peer: str) -> list[str]:
    """The packages of a peer that come with none of the others."""
    words = peer.lower().replace("bfloat16", "openvino")
    return [package for package in ("timm", "monai", "openvino") if package in words]


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rate, rate16 = matrix_rate(), matrix_rate("bfloat16")
    work = GMAC * (size / 224) ** 2
    side = (size - 224) // 32 + 1
    print(f"{size} × {size}: {side} × {side} windows; {work:.1f} GMAC. The")
    print(f"matrix product: {rate:.0f} GMAC/s in float32, which is the limit, {rate16:.0f} in bfloat16.\n")
    ways = {
        OURS: peers.fcnconv_plan,
        "fcnconv --backend openvino": partial(peers.fcnconv_openvino, precision="float32"),
        "fcnconv --precision bfloat16": partial(peers.fcnconv_openvino, precision="bfloat16"),
        "plain ONNX Runtime export": peers.plain_onnxruntime,
        "plain OpenVINO": partial(peers.plain_openvino, precision="float32"),
        "plain OpenVINO, this size alone": partial(peers.plain_openvino, precision="float32", fixed=True),
        "plain OpenVINO, bfloat16": partial(peers.plain_openvino, precision="bfloat16"),
        "plain OpenVINO, bfloat16, this size alone": partial(
            peers.plain_openvino, precision="bfloat16", fixed=True
        ),
        "fcnconv on torch": peers.fcnconv_torch,
        "plain torch conversion": peers.plain_torch,
        "timm TestTimePoolHead": peers.timm_test_time_pool,
        "crops, ONNX Runtime, 32 at a time": peers.crops_onnxruntime,
        "crops, torch, 32 at a time": peers.crops_torch,
        "crops, torch, one at a time": partial(peers.crops_torch, batch=1),
        "MONAI SlidingWindowInferer": peers.monai_inferer,
    }
    here = {name: way for name, way in ways.items() if all(map(find_spec, packages_of(name)))}
    for name in ways.keys() - here:
        print(f"{name}: left out, as its package is not there")
    measured = in_turns(
        {name: partial(way, size) for name, way in here.items()},
        rounds=int(sys.argv[2]) if len(sys.argv) > 2 else 5,
    )
    table(measured, OURS, ("of the limit", lambda seconds: f"{work / rate / seconds:.1%}"))
    print(f"\nCrops and MONAI are from the first {peers.some_rows(size)[1]:.0%} of the windows.")
