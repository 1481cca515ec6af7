"""What bfloat16 changes: the classes of windows against float32, on photos, and the time.

    python benchmarks/precision.py                    (the sample photos)
    python benchmarks/precision.py --images PHOTO ... (one's own)

Each photo at its own size, and its windows, as the dense map and as crops. The times are those of the
network alone, on noise of two sizes, in turns.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import peers
from side_by_side import in_turns, table

import fcnconv
from fcnconv.scores.activations import divergence

SAMPLES = sorted((Path(__file__).parents[1] / "sample_images").glob("*.[jp][pn]g"))
OURS = "fcnconv (plan)"
NAMES = {"fcn": "dense map", "windows": "crops"}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", nargs="*", type=Path, default=SAMPLES)
    images = parser.parse_args().images
    for mode in ("fcn", "windows"):
        exact = fcnconv.load(mode=mode)
        half = fcnconv.load(mode=mode, precision="bfloat16")
        pairs = []
        for image in images:
            maps = [classifier(image, anchors=0 if mode == "fcn" else 1) for classifier in (exact, half)]
            pairs.append([m.logits.reshape(-1, m.shape[2]) / np.float32(m.temperature) for m in maps])
        same = np.concatenate([a.argmax(1) == b.argmax(1) for a, b in pairs])
        sure = np.concatenate([np.exp(a - a.max(1, keepdims=True)).sum(1) < 2 for a, b in pairs])
        off = np.concatenate([divergence(a, b) for a, b in pairs])
        print(
            f"- {NAMES[mode]}: {len(same):,} windows of {len(images)} photos; "
            f"first class kept in {same.mean():.1%}, in {same[sure].mean():.1%} of the {sure.sum():,} whose "
            f"class is over 50 % sure; KL {off.mean():.4f} nats; {half.provenance.arithmetic}"
        )
    for size in (1024, 2048):
        print(f"\n{size} × {size} px:\n")
        ways = {
            OURS: peers.fcnconv_plan,
            "fcnconv --backend openvino": partial(peers.fcnconv_openvino, precision="float32"),
            "fcnconv --precision bfloat16": partial(peers.fcnconv_openvino, precision="bfloat16"),
        }
        table(in_turns({name: partial(way, size) for name, way in ways.items()}, rounds=7), OURS)
