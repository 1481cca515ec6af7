"""Options of `classify` and `locate`, whose answers are not maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fcnconv.errors import UsageError
from fcnconv.grid import Scale
from fcnconv.options.output import (
    AT_LEAST,
    MaxRegions,
    MinArea,
    OutputOptions,
    Projected,
    Threshold,
    TopK,
)
from fcnconv.options.parsing import OptionInfo, parse_share
from fcnconv.options.scan import EVALUATION_SIZE, SCALES, Mask, Roi, Scales, ScanOptions, Tissue

AnswerLevel = Literal["category", "concept"]


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of a classification of a whole image.

    scales: sizes to scan at.
    top_k: number of classes to list.
    level: ``category`` lists the k best categories. ``concept`` gives one answer, the most specific category
        or concept with a probability of at least `at_least`.
    at_least: lowest probability of the answer with ``concept``. None is 0.8.
    """

    scales: Scales = EVALUATION_SIZE
    top_k: TopK = 5
    level: Annotated[
        AnswerLevel,
        OptionInfo(
            "category lists the top classes; concept gives one answer that reaches --at-least.",
            metavar="KIND",
        ),
    ] = "category"
    at_least: Annotated[
        float | None,
        OptionInfo(
            "Lowest probability of the answer with --level concept. [default: 0.8]",
            metavar="P",
            least=0,
            most=1,
        ),
    ] = None

    def threshold(self) -> float | None:
        """The probability that the one answer must reach; None for a list of the best categories.

        Raises UsageError if `top_k` or `at_least` does not apply to the level.
        """
        if self.level == "concept":
            if self.top_k != 5:
                raise UsageError("--level concept gives one answer; leave out --top-k")
            return 0.8 if self.at_least is None else self.at_least
        if self.at_least is not None:
            raise UsageError(
                "--at-least changes nothing in a list of categories; it applies to --level concept"
            )
        return None


@dataclass(frozen=True)
class LocateOptions:
    """The options for the regions in an image: the fields of `ScanOptions` and `OutputOptions` for regions.

    classes: names of categories and concepts. If empty, `locating.locate` chooses the classes.
    """

    classes: Annotated[
        tuple[str, ...],
        OptionInfo(
            "A class to find, or a concept (dog); may be repeated. [default: what the image shows]",
            flags=("--class", "-c"),
            metavar="NAME",
            group="",
        ),
    ] = ()
    scales: Annotated[tuple[Scale, ...] | None, replace(SCALES, help=f"{SCALES.help} [default: auto]")] = None
    at_least: Annotated[
        float | None,
        OptionInfo(
            f"Lowest probability of a region. [default: {AT_LEAST}, and half of the class's highest]",
            metavar="P",
            group="",
            read=parse_share,
        ),
    ] = None
    threshold: Threshold = None
    min_area: MinArea = None
    max_regions: MaxRegions = None
    region: Roi = None
    mask: Mask = None
    tissue: Tissue = False
    projected: Projected = False

    def scan(self) -> ScanOptions:
        """The options of the scan that finds the regions."""
        return ScanOptions(
            scales=self.scales, region=self.region, mask=self.mask, tissue=self.tissue
        ).for_display()

    def output(self) -> OutputOptions:
        """The options of the regions."""
        return OutputOptions(
            classes=self.classes,
            at_least=self.at_least,
            threshold=self.threshold,
            min_area=self.min_area,
            max_regions=self.max_regions,
            projected=self.projected,
        )
