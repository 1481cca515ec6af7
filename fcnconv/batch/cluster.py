"""The engine for many machines: Ray Data, with one network in each of its actors.

Ray distributes the images, restarts failed actors, and requests no more images than its actors can take
(https://docs.ray.io/en/latest/data/data.html). An actor does the same as a local run, with a few threads, and
writes its answers itself if each is a file. Without an address, Ray is started on this machine only.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fcnconv.batch.distributed import HUGE, DistributedExecutor, Rows, is_huge
from fcnconv.batch.folders import Later, MapFolder, Outcome
from fcnconv.batch.inputs import Input
from fcnconv.batch.job import Job
from fcnconv.batch.packed import Pack
from fcnconv.batch.runs import Engine, Result
from fcnconv.batch.workers import attempt, each
from fcnconv.errors import FcnconvError, UsageError, first_line
from fcnconv.system.once import once

log = logging.getLogger("fcnconv")

TOGETHER = 32
"""Images that an actor is given at a time: enough to keep its threads busy, and few to repeat if it dies."""

WAVE, WAVE_BYTES = 20_000, 256 << 20
"""Largest number of images of a dataset, and of bytes of images that are passed as content. More images go
into the next dataset.
"""


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs.

    Attributes:
        address: The address of a running cluster; None starts Ray on this machine.
        workers: The number of actors; None is one for every two processors.
        gpus: GPUs per actor.
        huge: Number of pixels from which all workers share one image.
    """

    address: str | None = None
    workers: int | None = None
    gpus: int = 0
    huge: int = HUGE


@contextmanager
def ray_engine(job: Job, cluster: Cluster) -> Iterator[Engine]:
    """Yields the engine, which lasts until the block ends.

    Raises:
        UsageError: Ray is not installed.
        FcnconvError: The cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors arrive as exceptions
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--engine ray needs the package ray: pip install 'fcnconv[ray]'") from error
    if cluster.address:
        _check_reachable(cluster.address)
    try:
        with _quietly(), _on_this_machine(cluster.address is None):
            ray.init(
                address=cluster.address or "local",
                include_dashboard=False if cluster.address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise FcnconvError(
            f"Ray cannot be reached at {cluster.address or 'this machine'}: {first_line(error)}"
        ) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        processors = int(ray.cluster_resources().get("CPU", 1))
        workers = cluster.workers or max(processors // 2, 1)
        log.info("Ray with %d workers on %d processors", workers, processors)
        yield _engine(job, replace(cluster, workers=workers), max(processors // workers, 1))
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Checks that the address of a cluster accepts connections. Ray itself would wait minutes.

    Raises:
        FcnconvError: There is no answer at the address.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+)\]?:(\d{1,5})", address)
    if found:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except OSError as error:
            raise FcnconvError(f"Ray cannot be reached at {address}: {error.strerror or error}") from error


@contextmanager
def _on_this_machine(alone: bool) -> Iterator[None]:
    """Makes Ray listen on the loopback address only, if it is started for this machine alone. Where Ray does
    not support clusters (macOS, Windows), it does so by default.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not alone
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _quietly() -> Iterator[None]:
    """Discards the standard error of Ray's libraries while Ray starts. Users cannot act on it."""
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _engine(job: Job, cluster: Cluster, processors: int) -> Engine:
    """Returns the engine. processors: of each worker."""
    import ray

    workers, gpus = cluster.workers or 1, cluster.gpus
    room: dict[str, Any] = {"num_cpus": processors, **({"num_gpus": gpus} if gpus else {})}

    def engine(inputs: Iterable[Input], since: int, alone: bool) -> Generator[Result, None, None]:
        for wave in _waves(inputs):
            huge: list[Input] = []
            items = [pickle.dumps(item) for item in wave]
            together = 1 if alone else min(TOGETHER, -(-len(items) // workers))
            worked = ray.data.from_items(items, override_num_blocks=-(-len(items) // together)).map_batches(
                Worker,
                fn_constructor_args=(job, since, alone, workers, cluster.huge, str(Path.cwd())),
                batch_size=None,  # one block at a time, whose answers arrive as soon as it is done
                compute=ray.data.ActorPoolStrategy(size=min(workers, len(items))),
                **room,
            )
            for row in worked.iter_rows():
                name, result = pickle.loads(row["item"])
                if isinstance(result, UsageError):
                    raise result
                if isinstance(result, Huge):
                    huge.append(result.item)
                else:
                    yield name, result
            if huge:
                yield from _spread(job, huge, since, alone, workers, room)

    def explained(inputs: Iterable[Input], since: int, alone: bool) -> Generator[Result, None, None]:
        try:
            yield from engine(inputs, since, alone)
        except ray.exceptions.RayError as error:
            raise FcnconvError(f"Ray stopped: {first_line(error)}") from error

    return explained


def _spread(
    job: Job, items: list[Input], since: int, alone: bool, workers: int, room: dict[str, Any]
) -> Iterator[Result]:
    """Yields the results of huge images. All workers share each image."""
    import ray
    from ray.util import ActorPool

    here = str(Path.cwd())
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **room)(Rows)
    actors = [actor.remote(job, partial(open_elsewhere, workers=workers, here=here)) for _ in range(workers)]

    def each(what: str, calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        results: Iterator[Any] = ActorPool(actors).map(
            lambda actor, call: getattr(actor, what).remote(*call), calls
        )
        return results

    target = job.open()
    folder = target.folder if isinstance(target, Pack) else target
    for item in items:
        executor = DistributedExecutor(item, each, workers)
        shared = replace(folder, classifier=replace(folder.classifier, executor=executor))
        own = replace(target, folder=shared) if isinstance(target, Pack) else shared
        yield attempt(partial(own.make, since=since, alone=alone), item)


def _waves(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Yields the inputs in lists of limited size."""
    remaining = iter(inputs)
    for first in remaining:
        wave, size = [first], 0
        for item in islice(remaining, WAVE - 1):
            wave.append(item)
            size += len(item.image) if isinstance(item.image, bytes) else 0
            if size >= WAVE_BYTES:
                break
        yield wave


@dataclass(frozen=True)
class Huge:
    """An image that all workers share."""

    item: Input


def open_elsewhere(job: Job, *, workers: int, here: str) -> MapFolder | Pack:
    """Opens a job on a worker's machine.

    Args:
        job: The job.
        workers: The most workers on that machine, which share its memory.
        here: The folder that relative paths start from.
    """
    with suppress(OSError):  # on another machine, addresses and absolute paths are expected
        os.chdir(here)
    target = job.open()
    folder = target.folder if isinstance(target, Pack) else target
    if job.reading.max_memory is None:
        folder = replace(folder, classifier=folder.classifier.share(workers))
    return replace(target, folder=folder) if isinstance(target, Pack) else folder


class Worker:
    """An actor: it processes the images of a block of the dataset, a few at a time."""

    def __init__(self, job: Job, since: int, alone: bool, workers: int, huge: int, here: str):
        self.since, self.alone, self.huge = since, alone, huge
        self.target = once(partial(open_elsewhere, job, workers=workers, here=here))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the result of each image, pickled, in order."""
        items = [pickle.loads(item) for item in batch["item"]]
        results = np.empty(len(items), object)
        results[:] = [pickle.dumps(result) for result in self._results(items)]
        return {"item": results}

    def _results(self, items: list[Input]) -> Iterator[tuple[str, Outcome | Later | Huge | FcnconvError]]:
        done = set[str]()
        try:
            target = self.target()

            def work(item: Input) -> Outcome | Later | Huge:
                if is_huge(item, target, self.huge):
                    return Huge(item)
                return target.make(item, self.since, alone=self.alone)

            for result in map(partial(attempt, work), items) if self.alone else each(items, work):
                done.add(result[0])
                yield result
        except FcnconvError as error:  # an error of the network or of usage applies to all images
            yield from ((item.name, UsageError(str(error))) for item in items if item.name not in done)
