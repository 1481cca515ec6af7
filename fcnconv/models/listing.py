"""The list of models that ``fcnconv models`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from fcnconv.models import models


@dataclass(frozen=True)
class Listing:
    """What is worth knowing of a model before it is opened, None where it does not apply.

    name: what ``--model`` takes. weights: what `source` calls them.
    accuracy: published ImageNet top-1, in percent.
    window, stride, receptive_field: pixels; the latter two, and local, of its converted network.
    local: whether a tile's scores equal the whole image's. on_disk: whether its weights are here.
    mode: ``fcn`` if it can be converted, else ``windows``.
    """

    name: str
    source: str
    weights: str
    parameters: int
    accuracy: float
    window: int
    stride: int | None
    receptive_field: int | None
    local: bool | None
    mode: str
    on_disk: bool


def list_models(pattern: str = "") -> list[Listing]:
    """The models of the table whose names contain `pattern`, in any case, in the table's order.

    A model's default weights appear once, under its own name.
    """
    listed, seen = [], set()
    for name, spec in models().items():
        facts = spec.published
        if facts is None or id(spec.published) in seen:
            continue
        seen.add(id(spec.published))
        if pattern.casefold() in name.casefold():
            listed.append(
                Listing(
                    name=name,
                    source=facts.source,
                    weights=facts.weights,
                    parameters=facts.parameters,
                    accuracy=facts.accuracy,
                    window=spec.window,
                    stride=facts.stride,
                    receptive_field=facts.receptive_field,
                    local=facts.local,
                    mode="windows" if spec.no_fcn else "fcn",
                    on_disk=facts.on_disk(),
                )
            )
    return listed
