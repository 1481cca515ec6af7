"""`fcnconv batch`: writes the answers of many images to a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fcnconv.cli.arguments import Debug, Json, Listed, Model, Progress, Quiet, with_options
from fcnconv.cli.printing import print_made, report
from fcnconv.cli.progress_bar import Counter, shown
from fcnconv.errors import FcnconvError, UsageError
from fcnconv.models import DEFAULT_MODEL, OwnModel, find_model
from fcnconv.options import (
    EVERY_IMAGE,
    FrameChoice,
    NetworkOptions,
    OptionInfo,
    OutputOptions,
    ReadOptions,
    ScanOptions,
    Shard,
)
from fcnconv.options.parsing import Frame
from fcnconv.system.stdout import data_stream, print_data

if TYPE_CHECKING:
    from fcnconv.batch.folders import Outcome
    from fcnconv.batch.inputs import Input
    from fcnconv.batch.job import Job
    from fcnconv.batch.runs import Engine

log = logging.getLogger("fcnconv")

_RUNNING = "Running"


@dataclass(frozen=True)
class RunOptions:
    """Which images of a batch are processed, and where.

    overwrite: replace existing answers.
    missing: only list the images that have no answer yet.
    retry_failed: process only the images that failed before.
    shard: (I, N): part I of N of the images.
    engine: this process, or Ray.
    address, workers: of Ray's cluster.
    max_failures: give up after more failures.
    """

    overwrite: Annotated[bool, OptionInfo("Replace existing answers.", flags=("--overwrite",), group="")] = (
        False
    )
    missing: Annotated[
        bool, OptionInfo("Only list the images that have no answer yet.", flags=("--missing",), group="")
    ] = False
    retry_failed: Annotated[
        bool,
        OptionInfo("Process only the images in FOLDER/failures.jsonl.", flags=("--retry-failed",), group=""),
    ] = False
    shard: Shard = EVERY_IMAGE
    engine: Annotated[
        Literal["local", "ray"],
        OptionInfo("Where to run: local (this process) or ray.", metavar="local|ray", group=_RUNNING),
    ] = "local"
    address: Annotated[
        str | None,
        OptionInfo(
            "Address of Ray's cluster; auto finds it. [default: start Ray here]",
            metavar="ADDRESS",
            group=_RUNNING,
        ),
    ] = None
    workers: Annotated[
        int | None,
        OptionInfo(
            "Number of Ray workers. [default: one per two processors]", metavar="N", group=_RUNNING, least=1
        ),
    ] = None
    max_failures: Annotated[
        int | None, OptionInfo("Stop after more failures than N.", metavar="N", group=_RUNNING, least=0)
    ] = None


@with_options
def batch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="Image files, folders of them, patterns, .tar files, addresses.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where the maps go: a path or an address."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="As for heatmap; npz.tar packs maps, parquet lists the images' classes. [default: npz]",
        ),
    ] = "npz",
    cells_table: Annotated[
        bool, OptionInfo("With -f parquet: rows for each window.", flags=("--cells-table",), group="")
    ] = False,
    frame: FrameChoice = None,
    as_json: Json = False,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
    running: RunOptions,
    scan: ScanOptions,
    options: OutputOptions,
    network: NetworkOptions,
    reading: ReadOptions,
    own: OwnModel,
    listed: Listed,
) -> None:
    """Make the score maps of many images, in a folder.

    Each map keeps its image's path: FOLDER/photos/cat.jpg.npz. Existing maps are kept, so that a stopped run
    continues; FOLDER/fcnconv.json records how the maps were made. A pipe gets one line per image:
    the file of its map. With -f html FOLDER/index.html leads to all of them. Processes that share FOLDER
    share the work.

        fcnconv batch photos -o maps
        fcnconv batch 'photos/**/*.jpg' -o answers -f parquet
    """
    if not out:
        raise UsageError("name a folder for the maps with --out")
    listed.check(bool(sources))
    if not sources and listed == Listed() and not running.retry_failed:
        raise UsageError("name images, folders or patterns; or give --files-from, --from0 or --tar")
    if running.engine == "local" and (running.address or running.workers):
        raise UsageError("--address and --workers need --engine ray; add it, or leave them out")
    from fcnconv.backends import faster_precision
    from fcnconv.batch.job import Job
    from fcnconv.batch.runs import BatchRun

    job = Job(model, own, network, reading, scan, options, out, format, cells_table, running.shard)
    job.writer()
    inputs = _inputs(sources or [], listed, frame, out, running)
    if running.missing:
        _list_missing(job, inputs())
        return
    images = inputs()
    known = frame is None and not running.retry_failed and (bool(sources) or listed.is_file())
    with shown(progress, quiet=quiet):
        target = job.open(_count(inputs) if known and network.backend == "auto" else 0)
        faster = faster_precision(find_model(model, own), network)
    made = {True: 0, False: 0}
    on_terminal = data_stream().isatty()

    def show(name: str, answer: Outcome) -> None:
        made[answer.new] += 1
        if as_json or not on_terminal:
            print_made(name, answer, as_json=as_json)

    among_answers = on_terminal and as_json
    with (
        _engine(job, running) as engine,
        shown(progress, quiet=quiet, among_answers=among_answers) as account,
    ):
        watch = _Watch(Counter(account, "mapping", inputs if known else None), faster)
        run = BatchRun(target, engine, running.overwrite, running.max_failures, watch)
        # At its end, or on an interrupt, the folder's record and report are written.
        with closing(run(images)) as results:
            failed = report(results, show, as_json=as_json, debug=debug)
    log.info("%s", _summary(made[True], made[False], failed))
    if failed:
        raise typer.Exit(1)
    if not any(made.values()):
        raise FcnconvError("no images were found")


_ENOUGH = 10_000
"""The number of images up to which a batch is counted before it starts. More of them decide nothing."""


def _count(inputs: Callable[[], Iterator[Input]]) -> int:
    """Counts the images of a batch, up to `_ENOUGH`, if their number may decide which backend is faster."""
    if find_spec("openvino") is None:
        return 0
    return sum(1 for _ in islice(inputs(), _ENOUGH))


def _inputs(
    sources: list[str], listed: Listed, frame: Frame | None, out: str, running: RunOptions
) -> Callable[[], Iterator[Input]]:
    """Returns a function that yields the images of a batch."""
    from fcnconv.batch.inputs import framed, from_paths, from_sources, listed_inputs, sharded
    from fcnconv.batch.record import FolderRecord
    from fcnconv.batch.store import open_store
    from fcnconv.images.reading import image_suffixes

    retried = running.retry_failed
    failed_before = FolderRecord(open_store(out), running.shard).failures() if retried else {}

    def inputs() -> Iterator[Input]:
        if sources:
            found = from_sources(sources, image_suffixes(), Path(out))
        elif listed == Listed():
            return from_paths(failed_before)
        else:
            found = listed_inputs([], *listed.values())
        found = framed(sharded(found, running.shard), frame)
        return (item for item in found if item.name in failed_before) if retried else found

    return inputs


def _list_missing(job: Job, inputs: Iterator[Input]) -> None:
    """Prints the images that have no answer yet."""
    from fcnconv.batch.runs import unanswered

    for item in unanswered(job, inputs):
        if "\n" in item.name:
            raise FcnconvError(
                f"{item.name}: has a line break, so that no list of lines can hold it; rename it"
            )
        print_data(item.name)


def _engine(job: Job, running: RunOptions) -> AbstractContextManager[Engine | None]:
    """Opens the engine that runs the batch; None is this process."""
    if running.engine == "local":
        return nullcontext()
    from fcnconv.batch.cluster import Cluster, ray_engine

    gpus = int(job.network.device.startswith("cuda"))
    return ray_engine(job, Cluster(running.address, running.workers, gpus))


class _Watch:
    """Counts the outcomes of a batch, and logs once, after the first new one, what would be faster."""

    def __init__(self, counter: Counter, faster: str | None):
        self.counter, self.faster = counter, faster

    def __call__(self, result: Outcome | FcnconvError) -> None:
        if isinstance(result, FcnconvError):
            self.counter.count(result)
            return
        self.counter.count(result, new=result.new, megapixels=result.megapixels)
        if self.faster and result.new:  # not if the run is refused or all answers exist
            log.info("%s", self.faster)
            self.faster = None


def _summary(written: int, kept: int, failed: int) -> str:
    """Describes the outcome of the images. Numbers of 0 are omitted."""
    parts = [f"{written} written" if written else "", f"{kept} kept from an earlier run" if kept else ""]
    parts.append(f"{failed} failed" if failed else "")
    count = written + kept + failed
    return f"{count} {'image' if count == 1 else 'images'}: " + (
        ", ".join(filter(None, parts)) or "none found"
    )
