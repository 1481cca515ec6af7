"""The part of a job that this process is, if a queue started the same command many times. Queues set
variables for each of their tasks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fcnconv.errors import UsageError


@dataclass(frozen=True)
class Queue:
    """The variables of a queue that number its tasks.

    Attributes:
        name: The queue's name, or its name for tasks.
        index: The variable of the task's number.
        count: The variable of the number of tasks.
        first: The variable of the first number; without one, it is 0.
        step: The variable of the difference between two numbers.
    """

    name: str
    index: str
    count: str
    first: str = ""
    step: str = ""

    def part(self, environment: Mapping[str, str]) -> tuple[int, int]:
        """Returns (I, N), I from 1. Raises UsageError if the numbers do not form a complete sequence of
        tasks.
        """
        index, count = (
            self._number(environment, self.index, None),
            self._number(environment, self.count, None),
        )
        first, step = self._number(environment, self.first, 0), self._number(environment, self.step, 1)
        place, rest = divmod(index - first, max(step, 1))
        if rest or not 0 <= place < count:
            raise UsageError(
                f"--shard auto: task {index} is not one of {count} consecutive tasks from {first} "
                f"({self.name}); "
                "give the array numbers without gaps, or name the shard as I/N"
            )
        return place + 1, count

    @staticmethod
    def _number(environment: Mapping[str, str], name: str, usual: int | None) -> int:
        text = environment.get(name, "")
        if not text and usual is not None:
            return usual
        if not re.fullmatch("[0-9]{1,9}", text):
            raise UsageError(
                f"--shard auto: {name} is {text!r}, not a number; set it, or name the shard as I/N"
            )
        return int(text)


QUEUES = (
    Queue(
        "a Slurm array",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_COUNT",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_STEP",
    ),
    Queue("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    Queue("MPI", "PMI_RANK", "PMI_SIZE"),
    Queue("Slurm's srun", "SLURM_PROCID", "SLURM_NTASKS"),
    Queue("an indexed job of Kubernetes", "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
    Queue("an array of AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
    Queue("a task of Google Cloud Batch", "BATCH_TASK_INDEX", "BATCH_TASK_COUNT"),
)
"""The known queues. The first queue whose variables are set applies: srun may start the tasks of an array.
Kubernetes sets no count, so the job must set JOB_COMPLETIONS itself.
"""


def part_of_job(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Returns (I, N): this process is the I-th of N, from 1. Raises UsageError if no known queue set its
    variables.
    """
    for queue in QUEUES:
        if environment.get(queue.index):
            return queue.part(environment)
    known = ", ".join(queue.index for queue in QUEUES)
    raise UsageError(
        f"--shard auto: no queue has set the number of this part ({known}); name it as I/N, as in 1/8"
    )
