"""Runs as real processes, in which a fault happens at a named point; and their undisturbed twins.

A process is forked from this one, which has imported everything, since an import of torch and
lightning takes longer than such a run. The point `import` and a run in a process of its own
(`fresh`) start Python anew.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from helpers import ROOT, TIMEOUT, WarmProcess
from run_helpers import SMALL, differences

INJECT = Path(__file__).parent / "inject"
sys.path.append(str(INJECT))

import fault_points  # noqa: E402 - the hook of the processes, also used in forks

BASE = [
    *SMALL,
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "logger=none",
]
BASE.remove("~callbacks.report")  # it is switched on and off
SETUPS = {
    "checkpoints every 5 steps": [
        "data/augment=crop_flip",
        "callbacks.last.every_n_train_steps=5",
    ],
    "checkpoints every 4 steps, two validations per epoch": [
        "data/augment=crop_flip",
        "callbacks.last.every_n_train_steps=4",
        "trainer.val_check_interval=0.5",
    ],
    "two batches per step, two loader processes, plateau schedule": [
        "data/augment=crop_flip",
        "trainer.accumulate_grad_batches=2",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
    ],
    "transforms of single images, two loader processes": [
        "data/augment=rand_augment",
        "data.num_workers=2",
        "callbacks.last.every_n_train_steps=5",
    ],
    "one cycle, averaged weights": [
        "data/augment=crop_flip",
        "callbacks.last.every_n_train_steps=5",
        "scheduler=onecycle",
        "callbacks.ema.enabled=true",
    ],
}
STANDARD = next(iter(SETUPS))


@dataclass(frozen=True)
class Fault:
    """A fault, see inject/fault_points.py.

    Args:
        count: at which time that the point is reached.
        after: bytes of the file that are on the disk by then; None is the default of the point.
    """

    point: str
    action: str
    count: int = 1
    after: int | None = None

    def __str__(self) -> str:
        after = "" if self.after is None else f":{self.after}"
        return f"{self.point}:{self.action}:{self.count}{after}"


class Started:
    """A process that has been started."""

    def __init__(self, process: Any, marker: Path):
        self.process, self.marker = process, marker

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def wait(self) -> "Ended":
        done = self.process.wait()
        return Ended(done.returncode, done.stdout, done.stderr, self.reached())

    def reached(self) -> str:
        """What the fault has written before it happened; empty if it did not happen."""
        return self.marker.read_text() if self.marker.exists() else ""

    def wait_for_fault(self) -> None:
        """Wait until the point is reached, for a fault that does not end the process."""
        end = time.monotonic() + TIMEOUT
        while not self.reached():
            assert time.monotonic() < end and self.process.process.exitcode is None
            time.sleep(0.01)


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Args:
        code: the exit code, negative for a signal, as subprocess has it.
        reached: see `Started.reached`.
    """

    code: int
    stdout: str
    stderr: str
    reached: str

    @property
    def shell_code(self) -> int:
        """The exit code as shells have it: 128 plus the number of a signal."""
        return self.code if self.code >= 0 else 128 - self.code

    def has_two_lines(self) -> bool:
        """Whether it ended as a mistake of the user does."""
        lines = self.stderr.strip().splitlines()
        starts = [line.partition(":")[0] for line in lines]
        return self.code == 2 and starts == ["Error", "Hint"]


class Lab:
    """A scratch folder with runs, and one undisturbed run for each set of options."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self._number = 0
        self._references: dict[tuple[str, ...], Path] = {}

    def folder(self) -> Path:
        """A new run folder, which does not exist yet."""
        self._number += 1
        return self.scratch / f"run{self._number}"

    def reference(self, options: list[str]) -> Path:
        """The folder of an undisturbed run."""
        key = tuple(options)
        if key not in self._references:
            folder = self.folder()
            ended = self.run(folder, options)
            assert ended.code == 0, ended.stderr
            self._references[key] = folder
        return self._references[key]

    def run(
        self, folder: Path, options: list[str], fault: Fault | None = None, **env: str
    ) -> Ended:
        """`python train.py hydra.run.dir=FOLDER OPTIONS`, with a fault."""
        if fault is not None and fault.point == "import":
            return self.run_fresh(folder, options, fault)
        return self.start(folder, options, fault, **env).wait()

    def start(
        self, folder: Path, options: list[str], fault: Fault | None = None, **env: str
    ) -> Started:
        """The same, started in a fork."""
        marker = self._marker()
        prepare = None
        if fault is not None:
            prepare = partial(_prepare, str(fault), str(marker), env)
        arguments = [f"hydra.run.dir={folder}", *options]
        process = WarmProcess("train.py", *arguments, cwd=self.scratch, prepare=prepare)
        return Started(process, marker)

    def run_fresh(self, folder: Path, options: list[str], fault: Fault | None = None) -> Ended:
        """The same in a new process of Python."""
        marker = self._marker()
        path = [str(ROOT)] if fault is None else [str(INJECT), str(ROOT)]
        env = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": os.pathsep.join(path)}
        if fault is not None:
            env |= {"FAULT": str(fault), "FAULT_MARKER": str(marker)}
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={folder}", *options],
            cwd=self.scratch,
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        reached = marker.read_text() if marker.exists() else ""
        return Ended(done.returncode, done.stdout, done.stderr, reached)

    def _marker(self) -> Path:
        """A new file for what a fault writes, outside of the run folder and of its disk."""
        self._number += 1
        return self.scratch / f"reached{self._number}"

    def go_on(self, folder: Path, options: list[str]) -> list[str]:
        """Resume a run, or start it again where it has no checkpoint yet.

        Returns:
            What is not equal to the undisturbed run in the end.
        """
        last = folder / "checkpoints" / "last.ckpt"
        resume = [f"resume={last}"] if last.is_file() else []
        ended = self.run(folder, [*options, *resume])
        if ended.code != 0:
            return [f"exit code {ended.code} when it goes on: {ended.stderr[-500:]}"]
        left = [f"{path.name} is left" for path in folder.rglob("*.part")]
        return left + differences(self.reference(options), folder)


def _prepare(fault: str, marker: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    fault_points.install(fault, marker)


def options_for(setup: str, fault: Fault) -> list[str]:
    """The options of a set-up; the report is written only where the fault is in it."""
    enabled = str(fault.point == "report").lower()
    return [*BASE, *SETUPS[setup], f"callbacks.report.enabled={enabled}"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of its own (Linux, needs root).

    Raises:
        PermissionError: this process may not mount one.
    """
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
