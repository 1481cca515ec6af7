"""Prints which convolutional networks of the installed timm convert: one row per group of names.

    python docs/maintain/timm_table.py > table.md
    python docs/maintain/timm_table.py efficientnet nfnet

A group has the names of one timm module that differ only in numbers and sizes. The network with the fewest
parameters is built with random weights of ordinary size, converted and proved, in a process of its own.
Arguments restrict the table to some modules. All of them take about an hour on two cores.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

TOKENS = (
    "beit cait coat convit crossvit davit deepseek_vit deit efficientformer efficientformer_v2 efficientvim "
    "eva gcvit gemma4_vit hiera hieradet_sam2 iformer levit mlp_mixer mvitv2 naflexvit nest nextvit pit "
    "pvt_v2 qwen3_vit sequencer swiftformer swin_transformer swin_transformer_v2 swin_transformer_v2_cr "
    "tiny_vit tnt twins vision_transformer vision_transformer_hybrid vision_transformer_relpos "
    "vision_transformer_sam vitamin volo xcit"
).split()
"""Modules of networks of tokens, which have no windows to slide."""

SIZES = (
    "zepto atto femto pico nano xxtiny xtiny tiny small medium base large xlarge xxlarge huge giant slim xxs "
    "xs s m l x xl xx t0 t1 t2 b kobe a c d e f g h"
).split()


def lines() -> dict[tuple[str, str], list[str]]:
    """(module, line) -> its names."""
    import timm
    from timm.models import _registry

    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in timm.list_models():
        module = _registry._model_to_module[name]
        if module not in TOKENS:
            first, *rest = re.sub(r"\d+(x\d+d?)?", "#", name).split("_")
            line = "_".join([first, *("#" if token in SIZES else token for token in rest)])
            found[module, re.sub("(_#)+", "_#", line)].append(name)
    return found


def tried(name: str) -> str:
    """What came of a network: window, stride, worst difference and whether it is local; or the refusal."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, "tests")
    from ordinary import ordinary

    from fcnconv.convert import convolutionize
    from fcnconv.errors import FcnconvError
    from fcnconv.models.timm import timm_architecture

    architecture = timm_architecture(name)
    window = architecture.window
    try:
        model = ordinary(architecture.make(window, 20), window)
        made = convolutionize(model, window)
    except FcnconvError as error:
        return f"no | {window} | | | | {error}"
    g, proof = made.geometry, made.proof
    return f"yes | {window} | {g.stride} | {proof.relative_error:.0e} | {'yes' if g.local else 'no'} |"


def parameters(name: str) -> int:
    import torch
    from timm import create_model

    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name).parameters())


def row(key: tuple[str, str], names: list[str]) -> str:
    """A row of the table."""
    smallest = min(names, key=parameters)
    done = subprocess.run(
        [sys.executable, __file__, "--try", smallest], capture_output=True, text=True, timeout=1800
    )
    told = done.stdout.strip().splitlines()
    answer = told[-1] if told else f"no | | | | | {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    noise = " (stderr)" if "Traceback" in done.stderr else ""
    return f"| {key[0]} | {key[1]} | {smallest} | {len(names)} | {answer}{noise} |"


def main() -> None:
    if sys.argv[1:2] == ["--try"]:
        print(tried(sys.argv[2]))
        return
    chosen = {key: names for key, names in lines().items() if not sys.argv[1:] or key[0] in sys.argv[1:]}
    print("| module | line | tried | names | converts | window | stride | worst | local | why not |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with ThreadPoolExecutor(2) as threads:
        for told in threads.map(
            lambda item: row(*item), sorted(chosen.items(), key=lambda item: -len(item[1]))
        ):
            print(told, flush=True)


if __name__ == "__main__":
    main()
