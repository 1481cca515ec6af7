"""A custom model: a weights file, the architecture that it fits, and the preprocessing of images.

Values that are not given come from the JSON file next to the weights, then from the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fcnconv.errors import ModelError, UsageError
from fcnconv.labels.class_names import read_names
from fcnconv.models.architecture import Architecture
from fcnconv.models.spec import HeadActivation, ModelSpec, WeightOptions
from fcnconv.options import OptionInfo
from fcnconv.options.parsing import checked
from fcnconv.provenance import Activation, Channels
from fcnconv.system.records import parse_json

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

_OWN = "Custom model"

SUFFIXES = (".pth", ".pt", ".safetensors", ".pt2", ".bin", ".ckpt", ".torchscript", ".onnx")
"""Suffixes of weights files. Reading a file that turns out to be a program fails with the reason."""


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} is a name, not {value!r}")
    return value


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (str, Path)):
        return read_names(Path(value))
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{name} is a list of names, or the file that holds them, not {value!r}")
    return tuple(value)


def _pixels(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} is a number of pixels, not {value!r}")
    return value


def _positive(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise UsageError(f"{name} is a number over 0, not {value!r}")
    return float(value)


def _channels(name: str, value: object) -> Channels:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        channels = tuple(map(float, parts))  # type: ignore[call-overload]
        if not channels or not all(map(math.isfinite, channels)):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name} needs one number per channel, such as 0.5,0.5,0.5, not {value!r}"
        ) from error
    if name == "std" and not min(channels) > 0:
        raise UsageError(f"std must be over 0, not {value!r}")
    return channels


def _yes_or_no(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is true or false, not {value!r}")
    return value


def _spec(_name: str, value: object) -> OwnModel:
    return value if isinstance(value, OwnModel) else read_spec(Path(str(value)))


Check = Callable[[str, object], Any]
"""(name, value) -> the value of a field, from any accepted form of it. Raises UsageError."""

_CHECKS: dict[str, Check] = {
    "arch": _text,
    "categories": _names,
    "window": _pixels,
    "mean": _channels,
    "std": _channels,
    "eval_size": _pixels,
    "temperature": _positive,
    "mpp": _positive,
    "gsd": _positive,
    "activation": partial(checked, choices=Activation),
    "ema": _yes_or_no,
    "head_activation": partial(checked, choices=HeadActivation),
    "allow_torchscript": _yes_or_no,
    "spec": _spec,
}

_NOT_IN_FILES = ("spec", "allow_torchscript")
"""Fields that a JSON file cannot set. Only the user can allow code to run, not a file next to that code."""


def _option(help: str, metavar: str, read: str = "", least: float | None = None) -> OptionInfo:
    """An option. `read` is the field whose check converts its text. Files are read later."""
    reader: Callable[[str], Any] | None = str if metavar == "FILE" else None
    if read:
        reader = partial(_CHECKS[read], read)
    return OptionInfo(help, metavar=metavar, group=_OWN, read=reader, least=least)


@dataclass(frozen=True)
class OwnModel:
    """The user's description of a custom model. Each field is None if it is not given.

    The values come from the command line, a Python call or a JSON file, and are checked here in all three
    cases.

    Attributes:
        arch: the network: a torchvision name (``resnet18``) or a timm name (``timm/resnet18d``).
        categories: one name per class, in index order; or the path of a file with the names.
        window: side of the native input, in pixels.
        mean, std: one value per channel, for intensities 0 to 1; or text such as ``0.5,0.5,0.5``.
        eval_size: short side, in pixels, to which ``--scales fit`` resizes an image.
        temperature: divisor of the dense logits, if it was measured.
        activation: ``softmax`` for exclusive classes, ``sigmoid`` for independent classes, ``none`` for a
            network that ends in its own activation; None is softmax, or sigmoid for a single output.
        mpp, gsd: pixel size of the training images, in micrometres on a slide or in metres on the ground.
            Images are scanned at this size; None accepts any size.
        ema: whether to use the averaged weights of a file that has both kinds; None uses them.
        head_activation: the function between the linear layers of a head that differs from the architecture's
            own.
        allow_torchscript: whether to run the code in a TorchScript file. A JSON file cannot set it.
        spec: further fields; or the path of a JSON file with them, see `read_spec`.
        files: the files that were read for this description. No output may overwrite them.

    Raises:
        UsageError: a value has no meaning. The message names the field.
    """

    arch: Annotated[str | None, _option("Architecture of a file of weights, such as resnet18.", "NAME")] = (
        None
    )
    categories: Annotated[
        tuple[str, ...] | None,
        _option("Class names: a file of lines, CSV, JSON or YAML.", "FILE"),
    ] = None
    window: Annotated[
        int | None,
        _option("Side of the network's native input. [default: the architecture's]", "PX", least=1),
    ] = None
    mean: Annotated[
        Channels | None, _option("Mean of each input channel, for intensities 0 to 1.", "R,G,B", "mean")
    ] = None
    std: Annotated[Channels | None, _option("Standard deviation of each input channel.", "R,G,B", "std")] = (
        None
    )
    eval_size: Annotated[int | None, _option("Short side of the image with --scales fit.", "PX", least=1)] = (
        None
    )
    temperature: float | None = None
    mpp: Annotated[
        float | None,
        OptionInfo("Micrometres per pixel of the training slides.", metavar="UM", group=_OWN, least=0),
    ] = None
    gsd: Annotated[
        float | None, OptionInfo("Metres per pixel of the training images.", metavar="M", group=_OWN, least=0)
    ] = None
    activation: Annotated[
        Activation | None,
        OptionInfo(
            "Activation of the outputs: softmax, sigmoid, none. [default: softmax; sigmoid for one output]",
            metavar="HOW",
            group=_OWN,
        ),
    ] = None
    ema: Annotated[
        bool | None,
        OptionInfo(
            "Use the averaged weights of a file with both kinds; --no-ema uses the others.",
            flags=("--ema/--no-ema",),
            group=_OWN,
        ),
    ] = None
    head_activation: Annotated[
        HeadActivation | None,
        OptionInfo("Function between layers of a custom head: relu, gelu.", metavar="NAME", group=_OWN),
    ] = None
    allow_torchscript: Annotated[
        bool | None,
        OptionInfo(
            "Run the code in a TorchScript file. Only for files that you trust.",
            flags=("--allow-torchscript",),
            group=_OWN,
        ),
    ] = None
    files: tuple[Path, ...] = field(default=(), compare=False)
    spec: Annotated[OwnModel | None, _option("JSON file with these options.", "FILE")] = None

    def __post_init__(self) -> None:
        for name in self.given():
            value = getattr(self, name)
            if name in ("categories", "spec") and isinstance(value, (str, Path)):
                object.__setattr__(self, "files", (*self.files, Path(value)))
            object.__setattr__(self, name, _CHECKS[name](name, value))
        if self.mpp is not None and self.gsd is not None:
            raise UsageError("mpp and gsd both say how large pixels are; leave out one")
        if self.activation == "none" and self.temperature is not None:
            raise UsageError(
                "activation none leaves no logits for a temperature to divide; leave out one of the two"
            )
        if self.spec is not None:
            object.__setattr__(self, "files", (*self.files, *self.spec.files))

    @property
    def pixel_size(self) -> float | None:
        """Pixel size of the training images, in metres."""
        return self.gsd if self.mpp is None else self.mpp / 1e6

    def given(self) -> list[str]:
        """The names of the fields that are given."""
        return [name for name in _CHECKS if getattr(self, name) is not None]

    def completed(self) -> OwnModel:
        """This description, completed by its JSON file."""
        return self if self.spec is None else replace(self, spec=None).over(self.spec)

    def over(self, other: OwnModel) -> OwnModel:
        """This description, completed by `other`."""
        said: dict[str, Any] = {name: getattr(self, name) for name in self.given()}
        return replace(other, **said, files=(*self.files, *other.files))


def is_weights(name: str) -> bool:
    """Whether `name` is a weights file rather than a name in the table."""
    return Path(name).suffix.lower() in SUFFIXES or Path(name).is_file()


def read_spec(path: Path) -> OwnModel:
    """Reads an `OwnModel` from a JSON file: an object with the field names as keys.

    ``categories`` is a list of names, or the name of a file in the same folder.

    Raises:
        UsageError: a key is unknown, or its value has no meaning. The message names the key.
    """
    try:
        record = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: the model's description cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{path}: a model's description is a JSON object, not a {type(record).__name__}")
    known = [name for name in _CHECKS if name not in _NOT_IN_FILES]
    unknown = [key for key in record if key not in known]
    if unknown:
        raise UsageError(f"{path}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    if isinstance(record.get("categories"), str):
        record["categories"] = path.parent / record["categories"]
    try:
        return OwnModel(**record)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def own_spec(weights: Path, own: OwnModel, table: dict[str, ModelSpec]) -> ModelSpec:
    """The spec of a weights file.

    Args:
        weights: the file.
        own: the user's description, completed by the JSON file next to the weights (``weights.json``).
        table: the known models, whose architectures and preprocessing the file may use.

    Raises:
        UsageError: no known architecture is named.
    """
    beside = weights.with_suffix(".json")
    own = own.over(read_spec(beside)) if beside.is_file() else own
    if own.arch is None:
        raise UsageError(
            f"{weights}: name the network that these weights belong to with --arch, such as --arch resnet18"
        )
    return described_spec(str(weights), partial(existing, weights), own, find_architecture(own.arch, table))


def described_spec(
    name: str, weights: Callable[[], Path], own: OwnModel, architecture: Architecture
) -> ModelSpec:
    """The spec of a network with a known architecture.

    Args:
        name: name of the model.
        weights: returns the path of the weights.
        own: the user's description, which overrides `architecture`.
        architecture: the network, and the defaults for using it.
    """
    options = WeightOptions(own.ema, own.head_activation)
    architecture = replace(architecture, weights=options, name=architecture.name + options.key)
    window = own.window or architecture.window
    mean, std = colours(name, own, architecture.mean, architecture.std)
    return ModelSpec(
        name=name,
        window=window,
        eval_size=own.eval_size or round(architecture.eval_size * window / architecture.window),
        mean=mean,
        std=std,
        labels=lambda: architecture.labels(window, own.categories, weights(), own.activation),
        weights=weights,
        build=partial(architecture.build, window, len(mean)),
        stride=architecture.stride,
        temperature=own.temperature or 1.0,
        pixel_size=own.pixel_size,
        arch=architecture.name,
        no_fcn=architecture.no_fcn,
    )


def colours(name: str, own: OwnModel, mean: Channels, std: Channels) -> tuple[Channels, Channels]:
    """The mean and std of a network: from `own` if given, else `mean` and `std`.

    Args:
        name: name of the network, for messages.
        own: the user's description.
        mean, std: the defaults.

    Raises:
        UsageError: mean and std have different numbers of channels.
    """
    mean, std = own.mean or mean, own.std or std
    if len(mean) != len(std):
        raise UsageError(
            f"{name}: mean has {len(mean)} channels, and std has {len(std)}; give both, "
            "with one number per channel"
        )
    return mean, std


def find_architecture(arch: str, table: dict[str, ModelSpec]) -> Architecture:
    """The network with this name: a torchvision name, or ``timm/NAME``. Raises UsageError and ModelError."""
    if arch.startswith("timm/"):
        from fcnconv.models.timm import timm_architecture

        return timm_architecture(arch.removeprefix("timm/"))
    spec = table.get(arch)
    if spec is None or spec.published is None or spec.published.source != "torchvision" or "." in arch:
        raise UsageError(
            f"unknown architecture {arch!r}; known: torchvision's names, which 'fcnconv models' lists, "
            "and timm/NAME"
        )
    from fcnconv.models.torchvision import torchvision_architecture

    return torchvision_architecture(spec)


def existing(weights: Path) -> Path:
    """The path of a weights file. Raises ModelError if the file does not exist."""
    if not weights.is_file():
        raise ModelError(f"{weights}: no such file of weights")
    return weights
