"""The dense map of one image of a given size: time, ratio to ours, peak memory, share of the machine's limit.

    python benchmarks/dense.py 1024 5      (pixels, rounds)

The limit is the time that a matrix product of as many multiplications would take: 0.385 GMAC for each 224².
"""

from __future__ import annotations

import sys
from functools import partial

import peers
from side_by_side import in_turns, matrix_rate, table

GMAC = 0.385
OURS = "fcnconv (plan)"

if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rate = matrix_rate()
    work = GMAC * (size / 224) ** 2
    side = (size - 224) // 32 + 1
    print(f"{size} × {size}: {side} × {side} windows; {work:.1f} GMAC, matrix product {rate:.0f} GMAC/s")
    ways = {
        OURS: peers.fcnconv_plan,
        "plain ONNX Runtime export": peers.plain_onnxruntime,
        "fcnconv on torch": peers.fcnconv_torch,
        "plain torch conversion": peers.plain_torch,
        "timm TestTimePoolHead": peers.timm_test_time_pool,
        "crops, ONNX Runtime, 32 at a time": peers.crops_onnxruntime,
        "crops, torch, 32 at a time": peers.crops_torch,
        "crops, torch, one at a time": partial(peers.crops_torch, batch=1),
        "MONAI SlidingWindowInferer": peers.monai_inferer,
    }
    measured = in_turns(
        {name: partial(way, size) for name, way in ways.items()},
        rounds=int(sys.argv[2]) if len(sys.argv) > 2 else 5,
    )
    table(measured, OURS, lambda seconds: f"{work / rate / seconds:6.1%} of the limit")
    print(f"crops and MONAI: from the first {peers.some_rows(size)[1]:.0%} of the windows")
