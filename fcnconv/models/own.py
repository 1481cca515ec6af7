"""A model of one's own: a file of weights, the architecture that it fits, and how images are prepared for it.

What is not said comes from the JSON file beside the weights, then from the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fcnconv.class_names import read_names
from fcnconv.errors import ModelError, UsageError
from fcnconv.models.architecture import Architecture
from fcnconv.models.spec import ModelSpec
from fcnconv.models.weight_options import HeadActivation, WeightOptions
from fcnconv.options import OptionInfo
from fcnconv.parsing import checked
from fcnconv.provenance import Activation, Channels
from fcnconv.system.records import parse_json

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

_OWN = "Custom model"

SUFFIXES = (".pth", ".pt", ".safetensors", ".pt2", ".bin", ".ckpt", ".torchscript", ".onnx")
"""What a file of weights ends in. Those that are programs are refused with the reason when they are read."""


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
        raise UsageError(f"{name} is numbers, one a channel, as 0.5,0.5,0.5, not {value!r}") from error
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
"""(name, value) -> the value of a field, from whatever may stand for it. Raises UsageError."""

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
"""Fields that no JSON file may set: only the user can allow code to run, not a file beside that code."""


def _told(help: str, metavar: str, read: str = "", least: float | None = None) -> OptionInfo:
    """read: the field whose check makes the value from text; of a FILE that is done when all is said."""
    reader: Callable[[str], Any] | None = str if metavar == "FILE" else None
    if read:
        reader = partial(_CHECKS[read], read)
    return OptionInfo(help, metavar=metavar, group=_OWN, read=reader, least=least)


@dataclass(frozen=True)
class OwnModel:
    """What is said about a model of one's own; None where nothing is.

    It comes from the command line, a call in Python or a JSON file, and is checked here whatever way it
    comes. Raises UsageError, naming the field, for a value that cannot be meant.

    arch: the network: a name of torchvision's (``resnet18``) or of timm's (``timm/resnet18d``).
    categories: one name a class, in index order; or the path of a file of them.
    window: side of its native input, in pixels.
    mean, std: of each channel, for intensities 0 to 1; or text such as ``0.5,0.5,0.5``.
    eval_size: short side, in pixels, to which an image is resized by ``--scales fit``.
    temperature: by which dense logits are divided, where it was measured.
    activation: ``softmax`` of classes that exclude each other, ``sigmoid`` of independent ones, ``none`` of a
        network that ends in an activation of its own; None is softmax, and sigmoid for a single output.
    mpp, gsd: how large the pixels were that it learned from, in micrometres on a slide, or metres on the
        ground; images are scanned at that size. None is any.
    ema: whether to take the averaged weights of a file that also has others; None takes them.
    head_activation: what stands between the linear layers of a head that is not the architecture's own.
    allow_torchscript: whether to run the code in a TorchScript file. No JSON file can set it.
    spec: what is said beside; or the path of a JSON file of it, see `read_spec`.
    files: those that were read for all this, which no output may replace.
    """

    arch: Annotated[str | None, _told("Architecture of a file of weights, such as resnet18.", "NAME")] = None
    categories: Annotated[
        tuple[str, ...] | None,
        _told("Class names: a file of lines, CSV, JSON or YAML.", "FILE"),
    ] = None
    window: Annotated[
        int | None, _told("Side of the network's native input. [default: the architecture's]", "PX", least=1)
    ] = None
    mean: Annotated[
        Channels | None, _told("Mean of each input channel, for intensities 0 to 1.", "R,G,B", "mean")
    ] = None
    std: Annotated[Channels | None, _told("Standard deviation of each input channel.", "R,G,B", "std")] = None
    eval_size: Annotated[int | None, _told("Short side of the image with --scales fit.", "PX", least=1)] = (
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
    spec: Annotated[OwnModel | None, _told("JSON file with these options.", "FILE")] = None

    def __post_init__(self) -> None:
        for name in self.given():
            value = getattr(self, name)
            if name in ("categories", "spec") and isinstance(value, (str, Path)):
                object.__setattr__(self, "files", (*self.files, Path(value)))
            object.__setattr__(self, name, _CHECKS[name](name, value))
        if self.mpp is not None and self.gsd is not None:
            raise UsageError("mpp and gsd both say how large pixels are; leave out one")
        if self.activation == "none" and self.temperature is not None:
            raise UsageError("a temperature divides logits, and with activation none there are none")
        if self.spec is not None:
            object.__setattr__(self, "files", (*self.files, *self.spec.files))

    @property
    def pixel_size(self) -> float | None:
        """Metres across a pixel of what it learned from."""
        return self.gsd if self.mpp is None else self.mpp / 1e6

    def given(self) -> list[str]:
        """The names of what is said."""
        return [name for name in _CHECKS if getattr(self, name) is not None]

    def completed(self) -> OwnModel:
        """This, with what its JSON file says."""
        return self if self.spec is None else replace(self, spec=None).over(self.spec)

    def over(self, other: OwnModel) -> OwnModel:
        """This, completed by `other`."""
        said: dict[str, Any] = {name: getattr(self, name) for name in self.given()}
        return replace(other, **said, files=(*self.files, *other.files))


def is_weights(name: str) -> bool:
    """Whether `name` is a file of weights rather than a name of the table."""
    return Path(name).suffix.lower() in SUFFIXES or Path(name).is_file()


def read_spec(path: Path) -> OwnModel:
    """The `OwnModel` that a JSON file holds: an object of its field names.

    ``categories`` is a list of names, or the name of a file of them beside this one.

    Raises UsageError, naming the key, for one that is unknown or whose value cannot be meant.
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
    """The spec of a file of weights.

    own: what was said; the JSON file beside the weights (``weights.json``) completes it.
    table: the known models, whose architectures and preprocessing it may use.

    Raises UsageError if no known architecture is named.
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
    """The spec of a network whose weights are somewhere.

    name: what it is called. weights: gives their path. own: how the network is used, where that is not as
    `architecture` is.
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
    """What the images of a network are centred on and divided by: as told, else `mean` and `std`.

    name: of the network. Raises UsageError if these are of different numbers of channels.
    """
    mean, std = own.mean or mean, own.std or std
    if len(mean) != len(std):
        raise UsageError(
            f"{name}: mean is of {len(mean)} channels, and std of {len(std)}; give both, one number a channel"
        )
    return mean, std


def find_architecture(arch: str, table: dict[str, ModelSpec]) -> Architecture:
    """The network of a name: one of torchvision's, or ``timm/NAME``. Raises UsageError and ModelError."""
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
    """The path of a file of weights. Raises ModelError if it is not there."""
    if not weights.is_file():
        raise ModelError(f"{weights}: no such file of weights")
    return weights
