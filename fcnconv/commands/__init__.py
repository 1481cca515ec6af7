"""The commands: each parses, makes one call, and prints or writes. One file a command, and one row below."""

from collections.abc import Callable

from fcnconv.commands.batch import batch
from fcnconv.commands.classes import classes
from fcnconv.commands.classify import classify
from fcnconv.commands.export import export
from fcnconv.commands.heatmap import heatmap
from fcnconv.commands.models import models
from fcnconv.commands.prepare import prepare
from fcnconv.commands.verify import verify

COMMANDS: dict[str, Callable[..., None]] = {
    "classify": classify,
    "verify": verify,
    "heatmap": heatmap,
    "batch": batch,
    "classes": classes,
    "prepare": prepare,
    "export": export,
    "models": models,
}
"""Name -> function, in the order of the help."""
