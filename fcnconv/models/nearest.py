"""Finds the known networks that are nearest to some tensors, by names and shapes."""

from __future__ import annotations

import importlib.metadata
import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec

import torch

from fcnconv.models.checkpoint import Tensors, skeleton
from fcnconv.system.records import remembered

log = logging.getLogger("fcnconv")

USUAL_OF_TIMM = (
    *("resnet18d", "resnet26d", "resnet50d", "resnetv2_50", "resnest50d", "seresnet50", "ecaresnet50d"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_lite0"),
    *("tf_efficientnetv2_b0", "tf_efficientnetv2_s", "mobilenetv2_100", "mobilenetv3_large_100"),
    *("mobilenetv3_small_100", "convnext_nano", "convnext_tiny", "convnext_small", "convnext_base"),
    *(
        "convnextv2_tiny",
        "densenet121",
        "regnetx_032",
        "regnety_032",
        "inception_v3",
        "inception_v4",
        "xception",
    ),
    *("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "deit_small_patch16_224"),
    *("swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224", "rexnet_100", "ghostnet_100"),
    *("mixnet_s", "res2net50_26w_4s", "cspdarknet53", "repvgg_b0", "edgenext_small", "maxvit_tiny_tf_224"),
)
"""Networks of timm that are also compared if timm is installed. Comparing all of timm would take minutes."""


def nearest(tensors: Tensors, count: int = 3) -> list[tuple[str, int, int]]:
    """The known networks with the most tensors of the same names and shapes.

    Returns:
        (name, number of tensors that fit, number of tensors in the network), the nearest network first.
    """
    names = list(tensors)
    first = next((name for name in names if tensors[name].ndim == 4), names[0] if names else "")
    prefixes = ["", *(first[: n + 1] for n, letter in enumerate(first) if letter == ".")]
    signatures = {prefix: signature(tensors, prefix) for prefix in prefixes}
    scored = []
    for name, wanted in _known().items():
        fits = max(len(wanted & signature) for signature in signatures.values())
        scored.append((fits / max(len(wanted), min(len(tensors), 4 * len(wanted))), name, fits, len(wanted)))
    scored.sort(key=lambda each: (-each[0], each[1]))
    return [(name, fits, of) for score, name, fits, of in scored[:count] if score > 0.02]


def nearest_text(tensors: Tensors) -> str:
    """The nearest networks as text; empty if no known network is similar."""
    return ", ".join(f"{name} ({fits} of its {of} tensors fit)" for name, fits, of in nearest(tensors))


def signature(tensors: Mapping[str, torch.Tensor], prefix: str = "") -> set[int]:
    """A checksum of each tensor's name (after `prefix`) and shape, for comparisons."""
    return {
        zlib.crc32(f"{name[len(prefix) :]} {tuple(tensor.shape)}".encode())
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not name.endswith("num_batches_tracked")
    }


def _known() -> dict[str, set[int]]:
    """The signature of each known network, computed once per installed version of the libraries."""
    versions = []
    for library in ("torchvision", "timm"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{library} {importlib.metadata.version(library)}")

    def compare() -> dict[str, object]:
        log.info("comparing the weights with the known networks (about 20 s, once)")
        return {name: sorted(signature) for name, signature in _signatures()}

    return remembered(("networks", *versions), compare, lambda facts: {n: set(s) for n, s in facts.items()})


def _signatures() -> Iterator[tuple[str, set[int]]]:
    from torchvision import models  # type: ignore[import-untyped]

    for name in models.list_models(module=models):
        options = (
            {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        )
        make = partial(models.get_model, name, weights=None, **options)
        yield name, signature(skeleton(make).state_dict())
    if find_spec("timm") is None:
        return
    import timm

    for name in USUAL_OF_TIMM:
        with suppress(Exception):  # this version of timm does not have this network
            yield f"timm/{name}", signature(skeleton(partial(timm.create_model, name)).state_dict())
