"""Which faults the lab tries: drawn at random, with a seed, over the points and the set-ups."""

import random
from collections.abc import Callable
from typing import NamedTuple

from integration.faults import machine, promises
from integration.faults.lab import SETUPS, STANDARD, Fault, Lab, options_for

# Where runs are interrupted, and how often each of them is reached in every set-up.
COUNTS = {
    "import": 8,
    "data": 3,  # training, validation, test
    "first_step": 1,
    "mid_epoch": 36,
    "checkpoint": 4,
    "validation": 11,  # the first two are those of the check before the training
    "config": 1,
    "metrics": 3,
    "results": 2,  # after the training, after the test
    "test": 3,
    "tables": 1,
    "report": 1,
}
BYTES = 100_000  # a checkpoint has more


class Trial(NamedTuple):
    """A fault to try.

    Args:
        kind, point: the row of the table that it is counted in.
        run: tries it, and returns what was not as promised.
    """

    kind: str
    point: str
    title: str
    run: Callable[[Lab], list[str]]


def draw_faults(n: int, actions: list[str], seed: int) -> list[tuple[Fault, str]]:
    """Faults and their set-ups: the points take turns, all else is drawn."""
    draw = random.Random(seed)
    drawn = []
    for i in range(n):
        point = list(COUNTS)[i % len(COUNTS)]
        count = draw.randint(2 if point == "mid_epoch" else 1, COUNTS[point])
        after = draw.randint(1, BYTES) if point == "checkpoint" else None
        action = actions[(i + i // len(COUNTS)) % len(actions)]
        drawn.append((Fault(point, action, count, after), draw.choice(list(SETUPS))))
    return drawn


def signals(n: int, seed: int = 0) -> list[Trial]:
    """SIGTERM and SIGINT."""
    return [
        _trial("SIGTERM or SIGINT", promises.after_signal, fault, setup)
        for fault, setup in draw_faults(n, ["SIGTERM", "SIGINT"], seed)
    ]


def kills(n: int, seed: int = 1) -> list[Trial]:
    """SIGKILL."""
    return [
        _trial("SIGKILL", promises.after_kill, fault, setup)
        for fault, setup in draw_faults(n, ["SIGKILL"], seed)
    ]


def finished() -> list[Trial]:
    """A finished run that is resumed and ended before it has new results."""
    kind = "in a finished run that was resumed"
    faults = [Fault(point, "SIGKILL") for point in ("data", "test", "results")]
    faults.append(Fault("test", "SIGTERM"))
    return [
        _trial(kind, promises.after_fault_in_finished, fault, STANDARD)._replace(
            point=f"{fault.point}, {fault.action}"
        )
        for fault in faults
    ]


def _trial(kind: str, judge: Callable, fault: Fault, setup: str) -> Trial:
    options = options_for(setup, fault)
    return Trial(kind, fault.point, f"{fault} ({setup})", lambda lab: judge(lab, options, fault))


def disks() -> list[Trial]:
    """Full and read-only file systems of their own (Linux, needs root)."""
    files = {"last": "last.ckpt", "best": "best.ckpt"}
    files |= {"metrics": "metrics.csv", "results": "results.json"}
    points = [("last", 1), ("last", 4), ("best", 1), ("best", 2), ("metrics", 2)]
    points += [("results", 1), ("results", 2)]
    trials = [
        _machine("full file system", files[point], machine.full_disk, point, count)
        for point, count in points
    ]
    trials.append(
        _machine("full file system", "TensorBoard, test", machine.full_disk_of_tensorboard)
    )
    trials.append(_machine("full file system", "start", machine.full_disk_at_start))
    return [*trials, _machine("read-only file system", "start", machine.read_only)]


def others() -> list[Trial]:
    """Faults of the machine that need no rights."""
    trials = [_machine("no byte can be written", "start", machine.limited_at_start)]
    for point, action, words in [
        ("last", "ENOSPC", "disk is full"),
        ("results", "ENOSPC", "disk is full"),
        ("best", "EROFS", "Read-only"),
        ("metrics", "EACCES", "Permission denied"),
    ]:
        fault = Fault(point, action, 2)
        kind = "a write fails"
        trials.append(_machine(kind, f"{point}, {action}", machine.failed_write, fault, words))
    for fault, point in [
        (Fault("data", "memory"), "data, MemoryError"),
        (Fault("validation", "memory", 3), "validation, MemoryError"),
        (Fault("mid_epoch", "gpu_memory", 20), "mid_epoch, torch.OutOfMemoryError"),
        (Fault("first_step", "limit_memory"), "first_step, RLIMIT_AS"),
    ]:
        trials.append(_machine("out of memory", point, machine.out_of_memory, fault))
    for point in ("first_step", "test"):
        trials.append(_machine("two processes in one folder", point, machine.two_processes, point))
    trials.append(
        _machine("two processes in one folder", "validation, resume", machine.second_resume)
    )
    trials.append(_machine("a killed loader process", "third batch", machine.killed_loader))
    return [*trials, Trial("a lost image", "resume", "lost image", machine.lost_image)]


def _machine(kind: str, point: str, judge: Callable, *arguments: object) -> Trial:
    options = options_for(STANDARD, Fault("", ""))
    return Trial(kind, point, f"{kind}: {point}", lambda lab: judge(lab, options, *arguments))


def unnoticed_flips(lab: Lab, n: int, seed: int = 2) -> list[str]:
    """Bits of last.ckpt, each changed alone, that a reader of the file does not notice."""
    run = lab.reference(options_for(STANDARD, Fault("", "")))
    accepted = machine.accepted_flips(run / "checkpoints" / "last.ckpt", lab.scratch, n, seed)
    return [f"bit {bit} of last.ckpt was not noticed" for bit in accepted]
