"""Which part of a batch a process does: by a queue's variables, by the names of images."""

from __future__ import annotations

import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from fcnconv.batch.inputs import from_paths, sharded
from fcnconv.errors import UsageError
from fcnconv.options.parsing import parse_shard
from fcnconv.system.jobs import QUEUES, part_of_job

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "3"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, (3, 3)),
        ({**SLURM, "SLURM_ARRAY_TASK_STEP": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (3, 3)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "8"}, (1, 8)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (2, 2)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (4, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "4"}, (1, 4)),
        ({"JOB_COMPLETION_INDEX": "9", "JOB_COMPLETIONS": "10"}, (10, 10)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "2"}, (1, 2)),
        ({"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "2"}, (2, 2)),
    ],
)
def test_a_queue_tells_the_part(environment: dict[str, str], part: tuple[int, int]) -> None:
    assert part_of_job(environment) == part


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "no queue has set the number of this part"),
        ({"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS is '', not a number"),
        ({"PMI_RANK": "-1", "PMI_SIZE": "4"}, "PMI_RANK is '-1'"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "6"}, "task 6 is not one of 3 consecutive tasks from 3"),
        (
            {**SLURM, "SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2"},
            "give the array numbers without gaps",
        ),
    ],
)
def test_what_a_queue_does_not_tell_is_an_error(environment: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        part_of_job(environment)


def test_the_command_asks_the_queue(fcnconv: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for queue in QUEUES:
        monkeypatch.delenv(queue.index, raising=False)
    done = fcnconv("batch", "x.jpg", "-o", "maps", "--shard", "auto")
    assert done.returncode == 2 and b"--shard auto: no queue has set" in done.stderr
    monkeypatch.setenv("PMI_RANK", "2")
    monkeypatch.setenv("PMI_SIZE", "5")
    assert parse_shard("auto") == (3, 5)


NAMES = st.lists(st.text("ab/.é\n\udce9", min_size=1, max_size=6), max_size=30, unique=True)


@given(names=NAMES, more=NAMES, parts=st.integers(1, 9))
def test_shards_are_all_images_once_and_a_list_that_grows_moves_none(
    names: list[str], more: list[str], parts: int
) -> None:
    def shards(names: list[str]) -> dict[str, int]:
        found = [
            (item.name, i) for i in range(1, parts + 1) for item in sharded(from_paths(names), (i, parts))
        ]
        assert len(found) == len(names)
        return dict(found)

    before = shards(names)
    after = shards([*more, *(name for name in names if name not in more)])
    assert before.items() <= after.items()


def test_shards_are_of_like_size() -> None:
    names = [f"photos/{number:06}.jpg" for number in range(8000)]
    sizes = [len(list(sharded(from_paths(names), (i, 8)))) for i in range(1, 9)]
    assert min(sizes) > 850 and max(sizes) < 1150


def test_a_path_has_one_shard_however_it_is_written() -> None:
    for parts in (2, 7, 100):
        (shard,) = (i for i in range(1, parts + 1) if list(sharded(from_paths(["a/b.jpg"]), (i, parts))))
        assert list(sharded(from_paths(["./a//b.jpg"]), (shard, parts)))
