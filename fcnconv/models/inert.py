"""Stand-ins for objects that training scripts save with weights: settings, paths, NumPy numbers.

torch's restricted unpickler refuses a whole checkpoint that contains one of them. For a fixed list of names,
it gets an empty class instead. Nothing is imported, no code of the file is called, and the values are
dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

_VALUES = {
    "argparse": ("Namespace",),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"),
    "datetime": ("datetime", "timedelta", "date", "timezone"),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.dtypes": (
        *("Float64DType", "Float32DType", "Float16DType", "Int64DType", "Int32DType", "Int16DType"),
        *("Int8DType", "UInt8DType", "BoolDType", "StrDType"),
    ),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": ("AnyNode", "IntegerNode", "FloatNode", "StringNode", "BooleanNode", "PathNode"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "typing": ("Any",),
}

_DICTIONARIES = {
    "yacs.config": ("CfgNode",),
    "fvcore.common.config": ("CfgNode",),
    "easydict": ("EasyDict",),
    "addict.addict": ("Dict",),
    "mmengine.config.config": ("ConfigDict",),
    "mmcv.utils.config": ("ConfigDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
}


class _Value:
    """Accepts any arguments, and stores nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Dictionary:
    """Replaces the one kind of dictionary that the unpickler fills and gives attributes."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def _stand_ins(kind: type, names: Mapping[str, tuple[str, ...]]) -> list[type]:
    # torch finds an allowed class by the name that it gives itself.
    return [
        type(name, (kind,), {"__module__": module, "__qualname__": name})
        for module, classes in names.items()
        for name in classes
    ]


INERT: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *_stand_ins(_Value, _VALUES),
    *_stand_ins(_Dictionary, _DICTIONARIES),
]
"""For `torch.serialization.safe_globals`: one class per name, which does nothing."""
