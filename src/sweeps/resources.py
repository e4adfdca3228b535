"""What a job takes of the machine: its number of processes, its GPUs and its CPU threads."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

GPU_ACCELERATORS = ("auto", "gpu", "cuda")


def num_processes(trainer: Mapping[str, Any]) -> int:
    """The number of processes of a run with these trainer settings."""
    devices = trainer["devices"]
    if isinstance(devices, str) and "," in devices:
        devices = re.findall(r"\d+", devices)
    if not isinstance(devices, int | str):
        count = len(devices)
    elif str(devices) not in ("auto", "-1"):
        count = int(devices)
    elif trainer["accelerator"] in GPU_ACCELERATORS:
        count = max(torch.cuda.device_count(), 1)
    else:
        count = 1
    return count * trainer["num_nodes"]


def free_gpus(trainers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the GPUs that can be divided among jobs, as in CUDA_VISIBLE_DEVICES.

    Empty where a job runs on the CPU or names its own devices.
    """
    for trainer in trainers:
        fixed = not isinstance(trainer["devices"], int | str)
        if fixed or trainer["accelerator"] not in GPU_ACCELERATORS:
            return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slot_environments(
    trainers: Sequence[Mapping[str, Any]], slots: int | None, num_jobs: int
) -> list[dict[str, str]]:
    """Divide GPUs and CPU threads among jobs that run at the same time.

    Args:
        trainers: the trainer settings of all jobs.
        slots: jobs at a time; None is one for each GPU where there are several, else one.

    Returns:
        Environment variables for each slot. `OMP_NUM_THREADS` of the user is left alone.
    """
    processes = max(map(num_processes, trainers), default=1)
    gpus = free_gpus(trainers)
    groups = [gpus[i : i + processes] for i in range(0, len(gpus) - processes + 1, processes)]
    count = max(1, min(slots or len(groups), num_jobs))
    environments: list[dict[str, str]] = [{} for _ in range(count)]
    if len(groups) > 1:
        for slot, environment in enumerate(environments):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(groups[slot % len(groups)])
    if count > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = num_cores() // (count if gpus else count * processes)
        for environment in environments:
            environment["OMP_NUM_THREADS"] = str(max(1, threads))
    return environments
