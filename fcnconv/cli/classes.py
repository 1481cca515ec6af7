"""`fcnconv classes`: lists the names that --class accepts."""

from __future__ import annotations

from typing import Annotated

import typer

from fcnconv.cli.arguments import Debug, Json, Model, with_options
from fcnconv.errors import FcnconvError
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.system.stdout import data_stream


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
    """List the names that --class accepts.

    One per line: the class index (for a concept the number of its categories, such as ×118), the WordNet id
    and the names. A terminal gets aligned columns, a file or a pipe tabs.

        fcnconv classes camera
        fcnconv classes dog --json
    """
    found = find_model(model, own).labels().search(pattern)
    if not found:
        raise FcnconvError(f"no category or concept has {pattern!r} in its name")
    from fcnconv.cli.printing import print_classes, print_json_line

    if as_json:
        for s in found:
            also = {"also": s.also} if s.also else {}
            print_json_line({"name": s.name, "wnid": s.wnid, "classes": s.classes, **also})
        return
    indices = (f"×{len(s.classes)}" if s.class_idx is None else str(s.class_idx) for s in found)
    rows = ((index, s.wnid or "", ", ".join(s.names)) for index, s in zip(indices, found, strict=True))
    print_classes(rows, aligned=data_stream().isatty())
