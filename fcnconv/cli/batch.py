"""`fcnconv batch`: writes the answers of many images to a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Annotated, Literal

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
from fcnconv.system.stdout import data_stream, print_data

log = logging.getLogger("fcnconv")

_RUNNING = "Running"


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing answers.")] = False,
    missing: Annotated[
        bool, OptionInfo("Only list the images that have no answer yet.", flags=("--missing",), group="")
    ] = False,
    retry_failed: Annotated[
        bool,
        OptionInfo(
            "Process only the images in FOLDER/failures.jsonl.",
            flags=("--retry-failed",),
            group="",
        ),
    ] = False,
    shard: Shard = EVERY_IMAGE,
    engine: Annotated[
        Literal["local", "ray"],
        OptionInfo(
            "Where to run: local (this process) or ray.",
            flags=("--engine",),
            metavar="local|ray",
            group=_RUNNING,
        ),
    ] = "local",
    address: Annotated[
        str | None,
        OptionInfo(
            "Address of Ray's cluster; auto finds it. [default: start Ray here]",
            metavar="ADDRESS",
            group=_RUNNING,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        OptionInfo(
            "Number of Ray workers. [default: one per two processors]", metavar="N", group=_RUNNING, least=1
        ),
    ] = None,
    max_failures: Annotated[
        int | None, OptionInfo("Give up after more failures than N.", metavar="N", group=_RUNNING, least=0)
    ] = None,
    frame: FrameChoice = None,
    as_json: Json = False,
    model: Model = DEFAULT_MODEL,
    progress: Progress = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
    *,
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
    if not sources and listed == Listed() and not retry_failed:
        raise UsageError("name images, folders or patterns; or give --files-from, --from0 or --tar")
    if engine == "local" and (address or workers):
        raise UsageError("--address and --workers need --engine ray; add it, or leave them out")
    from fcnconv.backends import faster_precision
    from fcnconv.batch.inputs import Input, framed, from_paths, from_sources, listed_inputs, sharded
    from fcnconv.batch.job import Job
    from fcnconv.batch.outcome import Outcome
    from fcnconv.batch.record import FolderRecord
    from fcnconv.batch.runs import BatchRun, Engine, unanswered
    from fcnconv.batch.store import open_store
    from fcnconv.images.reading import image_suffixes

    job = Job(model, own, network, reading, scan, options, out, format, cells_table, shard)
    job.writer()
    failed_before = FolderRecord(open_store(out), shard).failures() if retry_failed else {}

    def inputs() -> Iterator[Input]:
        if sources:
            found = from_sources(sources, image_suffixes(), Path(out))
        elif listed == Listed():
            return from_paths(failed_before)
        else:
            found = listed_inputs([], *listed.values())
        found = framed(sharded(found, shard), frame)
        return (item for item in found if item.name in failed_before) if retry_failed else found

    if missing:
        for item in unanswered(job, inputs()):
            if "\n" in item.name:
                raise FcnconvError(
                    f"{item.name}: has a line break, so that no list of lines can hold it; rename it"
                )
            print_data(item.name)
        return
    images = inputs()
    with shown(progress, quiet=quiet):
        target = job.open()
        hints = [hint for hint in [faster_precision(find_model(model, own), network)] if hint]
    made = {True: 0, False: 0}
    silent = data_stream().isatty() and not as_json
    on_terminal = data_stream().isatty() and not silent

    def show(name: str, answer: Outcome) -> None:
        made[answer.new] += 1
        if not silent:
            print_made(name, answer, as_json=as_json)

    if engine == "ray":
        from fcnconv.batch.cluster import Cluster, ray_engine

        cluster = Cluster(address, workers, int(network.device.startswith("cuda")))
        running: AbstractContextManager[Engine | None] = ray_engine(job, cluster)
    else:
        running = nullcontext()
    with running as engine_of_run, shown(progress, quiet=quiet, among_answers=on_terminal) as account:
        known = frame is None and not retry_failed and (bool(sources) or listed.is_file())
        counter = Counter(account, "mapping", inputs if known else None)

        def watch(result: Outcome | FcnconvError) -> None:
            if isinstance(result, FcnconvError):
                counter.count(result)
                return
            counter.count(result, new=result.new, megapixels=result.megapixels)
            while hints and result.new:  # once, and not if the run is refused or all answers exist
                log.info("%s", hints.pop())

        run = BatchRun(target, engine_of_run, overwrite, max_failures, watch)
        # At its end, or on an interrupt, the folder's record and report are written.
        with closing(run(images)) as results:
            failed = report(results, show, as_json=as_json, debug=debug)
    log.info("%s", _summary(made[True], made[False], failed))
    if failed:
        raise typer.Exit(1)
    if not any(made.values()):
        raise FcnconvError("no images were found")


def _summary(written: int, kept: int, failed: int) -> str:
    """Describes the outcome of the images. Numbers of 0 are omitted."""
    parts = [f"{written} written" if written else "", f"{kept} kept from an earlier run" if kept else ""]
    parts.append(f"{failed} failed" if failed else "")
    count = written + kept + failed
    return f"{count} {'image' if count == 1 else 'images'}: " + (
        ", ".join(filter(None, parts)) or "none found"
    )
