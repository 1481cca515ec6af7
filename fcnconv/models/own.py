"""A model of one's own: a file of weights, the architecture that it fits, and how images are prepared for it.

What is not said comes from the JSON file beside the weights, then from the architecture.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fcnconv.errors import ModelError, UsageError
from fcnconv.labels import Labels, imagenet, named, numbered
from fcnconv.models.spec import Channels, ModelSpec
from fcnconv.options import Told

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("fcnconv")

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

_OWN = "Own model"

SUFFIXES = (".pth", ".pt", ".safetensors", ".pt2", ".bin", ".ckpt", ".torchscript")
"""What a file of weights ends in. Those that are programs are refused with the reason when they are read."""


@dataclass(frozen=True)
class OwnModel:
    """What is said about a model of one's own; None where nothing is.

    arch: the network: a name of torchvision's (``resnet18``) or of timm's (``timm/resnet18d``).
    categories: one name a class, in index order.
    window: side of its native input, in pixels.
    mean, std: of each channel, for intensities 0 to 1.
    eval_size: short side, in pixels, to which an image is resized by ``--scales fit``.
    temperature: by which dense logits are divided, where it was measured.
    """

    arch: Annotated[
        str | None, Told("With a file of weights: its network, as resnet18.", metavar="NAME", group=_OWN)
    ] = None
    categories: Annotated[
        tuple[str, ...] | None,
        Told(
            "Its classes, one name a line, in index order.",
            metavar="FILE",
            group=_OWN,
            read=_categories_of,
        ),
    ] = None
    window: Annotated[
        int | None, Told("The side of its native input.", metavar="PX", group=_OWN, least=1)
    ] = None
    mean: Annotated[
        Channels | None,
        Told(
            "What its input is centred on, of 0 to 1.",
            metavar="R,G,B",
            group=_OWN,
            read=partial(parse_channels, "mean"),
        ),
    ] = None
    std: Annotated[
        Channels | None,
        Told(
            "What its input is divided by.",
            metavar="R,G,B",
            group=_OWN,
            read=partial(parse_channels, "std"),
        ),
    ] = None
    eval_size: Annotated[
        int | None,
        Told("The short side that --scales fit brings an image to.", metavar="PX", group=_OWN, least=1),
    ] = None
    temperature: float | None = None
    spec: Annotated[
        OwnModel | None,
        Told("A JSON file of all these.", metavar="FILE", group=_OWN, read=_spec_of),
    ] = None

    def completed(self) -> OwnModel:
        """This, with what its JSON file says."""
        return self if self.spec is None else replace(self, spec=None).over(self.spec)

    def given(self) -> list[str]:
        """The names of what is said."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def over(self, other: OwnModel) -> OwnModel:
        """This, completed by `other`."""
        said: dict[str, Any] = {name: getattr(self, name) for name in self.given()}
        return replace(other, **said)


def is_weights(name: str) -> bool:
    """Whether `name` is a file of weights rather than a name of the table."""
    return Path(name).suffix.lower() in SUFFIXES or Path(name).is_file()


def read_categories(path: Path) -> tuple[str, ...]:
    """One name a line, in index order; empty lines at the end do not count. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the categories cannot be read: {error}") from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or "" in names:
        line = names.index("") + 1 if names else 1
        raise UsageError(f"{path}: line {line} is empty; write one category a line, in index order")
    return names


def _categories_of(text: str) -> tuple[str, ...]:
    return read_categories(Path(text))


def _spec_of(text: str) -> OwnModel:
    return read_spec(Path(text))


def read_spec(path: Path) -> OwnModel:
    """The `OwnModel` that a JSON file holds: an object of its field names.

    ``categories`` is a list of names, or the name of a file of them beside this one.

    Raises UsageError, naming the key, for one that is unknown or whose value cannot be meant.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: the model's description cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{path}: a model's description is a JSON object, not a {type(record).__name__}")
    unknown = [key for key in record if key not in _READERS]
    if unknown:
        raise UsageError(f"{path}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(_READERS)}")
    if isinstance(record.get("categories"), str):
        record["categories"] = read_categories(path.parent / record["categories"])
    try:
        return OwnModel(**{key: _READERS[key](key, value) for key, value in record.items()})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def describe(
    *,
    arch: str | None = None,
    categories: Sequence[str] | str | Path | None = None,
    window: int | None = None,
    mean: Sequence[float] | str | None = None,
    std: Sequence[float] | str | None = None,
    eval_size: int | None = None,
    spec: str | Path | None = None,
) -> OwnModel:
    """What was said about a model of one's own, checked. The other arguments come before the file `spec`.

    categories: names, or the path of a file of them.
    mean, std: three numbers, or text such as ``0.5,0.5,0.5``.
    spec: a JSON file, see `read_spec`.

    Raises UsageError.
    """
    names = read_categories(Path(categories)) if isinstance(categories, (str, Path)) else categories
    given = {
        "arch": arch,
        "categories": names,
        "window": window,
        "mean": mean,
        "std": std,
        "eval_size": eval_size,
    }
    own = OwnModel(**{key: _READERS[key](key, value) for key, value in given.items() if value is not None})
    return own.over(read_spec(Path(spec))) if spec is not None else own


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{key} is a name, not {value!r}")
    return value


def _names(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{key} is a list of names, or the file that holds them, not {value!r}")
    return tuple(value)


def _pixels(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{key} is a number of pixels, not {value!r}")
    return value


def _positive(key: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise UsageError(f"{key} is a number over 0, not {value!r}")
    return float(value)


def parse_channels(key: str, value: object) -> Channels:
    """The three numbers of a list, or of a text such as ``0.5,0.5,0.5``. Raises UsageError."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        red, green, blue = map(float, parts)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{key} is three numbers, one a channel, not {value!r}") from error
    if key == "std" and not min(red, green, blue) > 0:
        raise UsageError(f"std must be over 0, not {value!r}")
    return red, green, blue


_READERS: dict[str, Callable[[str, object], Any]] = {
    "arch": _text,
    "categories": _names,
    "window": _pixels,
    "mean": parse_channels,
    "std": parse_channels,
    "eval_size": _pixels,
    "temperature": _positive,
}


@dataclass(frozen=True)
class Architecture:
    """A network without its weights, and how they are used unless something else is said.

    make: builds it for a window in pixels and a number of classes, in evaluation mode.
    The rest is as in `ModelSpec`.
    """

    make: Callable[[int, int], nn.Module]
    window: int
    eval_size: int
    mean: Channels
    std: Channels
    stride: int = 32
    no_fcn: str = ""


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
    architecture = _architecture(own.arch, table)
    window = own.window or architecture.window
    make = partial(architecture.make, window)
    return ModelSpec(
        name=str(weights),
        window=window,
        eval_size=own.eval_size or round(architecture.eval_size * window / architecture.window),
        mean=own.mean or architecture.mean,
        std=own.std or architecture.std,
        labels=partial(own_labels, weights, own.categories, make),
        weights=partial(_existing, weights),
        build=partial(own_build, own.categories, make),
        stride=architecture.stride,
        temperature=own.temperature or 1.0,
        arch=own.arch,
        no_fcn=architecture.no_fcn,
    )


def _architecture(arch: str, table: dict[str, ModelSpec]) -> Architecture:
    if arch.startswith("timm/"):
        from fcnconv.models.timm import timm_architecture

        return timm_architecture(arch.removeprefix("timm/"))
    spec = table.get(arch)
    if spec is None or spec.published is None or spec.published.source != "torchvision" or "." in arch:
        raise UsageError(
            f"unknown architecture {arch!r}; known: torchvision's names, which 'fcnconv models' lists, "
            "and timm/NAME"
        )
    from fcnconv.models.torchvision import FROM_TENSORFLOW, make_network

    # These two normalise to -1..1 inside when they carry published weights; here it is said outside.
    half = (0.5, 0.5, 0.5)
    mean, std = (half, half) if arch in FROM_TENSORFLOW else (spec.mean, spec.std)
    make = partial(make_network, arch)
    return Architecture(make, spec.window, spec.eval_size, mean, std, spec.stride, spec.no_fcn)


def _existing(weights: Path) -> Path:
    if not weights.is_file():
        raise ModelError(f"{weights}: no such file of weights")
    return weights


def own_labels(weights: Path, categories: tuple[str, ...] | None, make: Callable[[int], nn.Module]) -> Labels:
    """The labels of a file of weights: the names that were given, else one for each class that it has."""
    if categories is not None:
        return named(categories)
    from fcnconv.models.checkpoint import count_classes, read_tensors

    count = count_classes(make, read_tensors(weights), str(weights))
    return unnamed(count, str(weights))


def unnamed(num_classes: int, name: str) -> Labels:
    """Labels for a model whose classes were not named: ImageNet's if there are as many, else numbers."""
    if num_classes == len(imagenet()):
        log.info("%s: 1000 classes without names are taken for ImageNet's; name them with --categories", name)
        return imagenet()
    return numbered(num_classes)


def own_build(
    categories: tuple[str, ...] | None, make: Callable[[int], nn.Module], weights: Path
) -> nn.Module:
    """The network of a file of weights, made for as many classes as they have. Raises ModelError."""
    from fcnconv.models.checkpoint import count_classes, fill, read_tensors, skeleton

    tensors = read_tensors(weights)
    count = count_classes(make, tensors, str(weights))
    check_categories(categories, count, str(weights))
    return fill(skeleton(lambda: make(count)), tensors, str(weights))


def check_categories(categories: tuple[str, ...] | None, num_classes: int, name: str) -> None:
    """Raises ModelError if the names are not as many as the classes."""
    if categories is not None and len(categories) != num_classes:
        raise ModelError(f"{name}: the network has {num_classes} classes, and {len(categories)} are named")
