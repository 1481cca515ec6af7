"""`fcnconv classes`: the names that --class knows."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnconv.commands.options import Debug, Json, Model, with_options
from fcnconv.errors import FcnconvError
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.system.stdout import print_data


@with_options
def classes(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="A part of a name, or a WordNet id; none lists all.")
    ] = "",
    model: Model = DEFAULT_MODEL,
    as_json: Json = False,
    debug: Debug = False,
    *,
    own: OwnModel,
) -> None:
    """The names that --class knows: categories, and concepts.

    A line each: the class index (of a concept the number of its categories, as ×118), the WordNet id and the
    names, separated by tabs.

        fcnconv classes camera
        fcnconv classes dog --json
    """
    found = find_model(model, own).labels().search(pattern)
    if not found:
        raise FcnconvError(f"no category or concept has {pattern!r} in its name")
    from fcnconv.console.printing import print_json_line

    for s in found:
        if as_json:
            also = {"also": s.also} if s.also else {}
            print_json_line({"name": s.name, "wnid": s.wnid, "classes": s.classes, **also})
        else:
            index = f"×{len(s.classes)}" if s.class_idx is None else str(s.class_idx)
            print_data(index, s.wnid or "", ", ".join(s.names))
