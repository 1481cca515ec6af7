"""TorchScript files: networks saved together with their code, as WSInfer's zoo publishes them.

torch runs the code in such a file when it loads and calls it, so fcnconv opens one only after
``--allow-torchscript`` (``allow_torchscript=True`` in Python). The code cannot be traced: these networks run
in `windows` mode. Nothing here imports torch before a file is run.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fcnconv.errors import ModelError, UsageError
from fcnconv.labels import Labels
from fcnconv.models.architecture import named_or_numbered
from fcnconv.models.own import IMAGENET_MEAN, IMAGENET_STD, OwnModel, colours, existing, read_spec
from fcnconv.models.spec import ModelSpec
from fcnconv.models.weight_files import file_sha256, refuse_program
from fcnconv.system.records import Facts, remembered

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")

WINDOW = 224
"""Default side of the window. A TorchScript file does not state the size of its input."""

NO_FCN = "it is a TorchScript program, whose code cannot be traced"


def torchscript_spec(name: str, weights: Callable[[], Path], own: OwnModel) -> ModelSpec:
    """The spec of a TorchScript file: float32 (N, channels, window, window) -> logits (N, num_classes).

    Args:
        name: name of the model.
        weights: returns the path of the file, which the user has allowed to run.
        own: its window, normalisation and classes. The file contains none of them.

    Raises:
        UsageError: `own` has an architecture, or an option that applies only to weights files.
    """
    for field in ("arch", "ema", "head_activation"):
        if getattr(own, field) is not None:
            flag = f"--{field.replace('_', '-')}"
            raise UsageError(f"{name}: a TorchScript file contains its own network; leave out {flag}")
    window = own.window or WINDOW
    mean, std = colours(name, own, IMAGENET_MEAN, IMAGENET_STD)
    if own.window is None or own.mean is None or own.std is None:
        log.info(
            "%s: a TorchScript file does not state its input; taking a window of %d px, mean %s and std %s. "
            "--window, --mean and --std change them",
            *(name, window, _listed(mean), _listed(std)),
        )
    return ModelSpec(
        name=name,
        window=window,
        eval_size=own.eval_size or round(window * 8 / 7),
        mean=mean,
        std=std,
        labels=partial(_labels, name, weights, own, window, len(mean)),
        weights=weights,
        build=partial(_network, window, len(mean)),
        pixel_size=own.pixel_size,
        no_fcn=NO_FCN,
        no_plan=f"{name} is a TorchScript program, which torch runs without a plan",
    )


def torchscript_file(path: Path, own: OwnModel) -> ModelSpec:
    """The spec of a TorchScript file, given by its path. The JSON file next to it completes `own`.

    Raises:
        ModelError: the user has not allowed it to run.
    """
    if not own.allow_torchscript:
        raise refuse_program(path, "TorchScript")
    beside = path.with_suffix(".json")
    own = own.over(read_spec(beside)) if beside.is_file() else own
    return torchscript_spec(str(path), partial(existing, path), own)


def _listed(channels: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in channels)


def _labels(name: str, weights: Callable[[], Path], own: OwnModel, window: int, channels: int) -> Labels:
    """The labels, one per class of the network. Running the network once counts the classes."""
    path = weights()

    def count_classes() -> Facts:
        import torch

        with torch.inference_mode():
            logits = _network(window, channels, path)(torch.zeros(1, channels, window, window))
        return {"num_classes": int(logits.shape[1])}

    key = "torchscript", file_sha256(path), str(window), str(channels)
    count = remembered(key, count_classes, lambda facts: int(facts["num_classes"]))
    return named_or_numbered(own.categories, count, name, own.activation)


def _network(window: int, channels: int, path: Path) -> nn.Module:
    """The network in a file, which scores each image independently. Raises ModelError."""
    import torch
    from torch import nn

    from fcnconv.models.module import check_weights, image_by_image

    class Logits(nn.Module):
        """The program. GoogLeNet and Inception return their logits in a named tuple."""

        def __init__(self, program: nn.Module):
            super().__init__()
            self.program = program

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                output = self.program(x)
            except RuntimeError as error:  # its first line only says that a program failed
                raise RuntimeError(_last_line(error)) from error
            logits: torch.Tensor = getattr(output, "logits", output)
            return logits

    with warnings.catch_warnings():  # torch's deprecation warning concerns those who write TorchScript
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        try:
            program: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{path}: torch cannot load this TorchScript file ({_last_line(error)})"
            ) from error
        program = program.float().eval()
    check_weights(program)
    return image_by_image(Logits(program).eval(), channels, window, str(path))


def _last_line(error: BaseException) -> str:
    """The cause of a TorchScript error: its last line, after the trace of the program."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
