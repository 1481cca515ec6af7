"""Sliding-window image classification.

    >>> import fcnconv
    >>> classifier = fcnconv.load("efficientnet_lite0")
    >>> score_map = classifier("photo.jpg")            # a ScoreMap: float32 (rows, cols, num_classes)
    >>> classifier.classify("photo.jpg").predictions   # the top five of the whole image

The names below are imported when they are first used, so that ``import fcnconv`` and the command's
``--help`` load neither torch nor numpy.
"""

from typing import TYPE_CHECKING

from fcnconv.version import __version__

if TYPE_CHECKING:
    from fcnconv.api.classifier import Classifier
    from fcnconv.api.loading import load
    from fcnconv.api.maps import ScoreMap
    from fcnconv.convert import convolutionize
    from fcnconv.errors import (
        ConversionError,
        FcnconvError,
        ImageError,
        ModelError,
        OutputError,
        PlanError,
        UsageError,
    )
    from fcnconv.images.reading import read_image
    from fcnconv.options import OutputOptions, ScanOptions

_HOME = {
    "Classifier": "api.classifier",
    "ConversionError": "errors",
    "FcnconvError": "errors",
    "ImageError": "errors",
    "OutputOptions": "options",
    "ScanOptions": "options",
    "ModelError": "errors",
    "OutputError": "errors",
    "PlanError": "errors",
    "ScoreMap": "api.maps",
    "UsageError": "errors",
    "convolutionize": "convert",
    "load": "api.loading",
    "read_image": "images.reading",
}

__all__ = [
    "Classifier",
    "ConversionError",
    "FcnconvError",
    "ImageError",
    "ModelError",
    "OutputError",
    "OutputOptions",
    "PlanError",
    "ScanOptions",
    "ScoreMap",
    "UsageError",
    "__version__",
    "convolutionize",
    "load",
    "read_image",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'fcnconv' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fcnconv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
