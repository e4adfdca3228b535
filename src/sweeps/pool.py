"""The one supervisor of sweeps and searches: it runs jobs in processes of their own."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

from omegaconf import DictConfig

from ..runs.run_folder import set_status, status
from .processes import CONTEXT
from .worker import run_job

PROJECT = Path(__file__).parents[2]
POLL_SECONDS = 0.1
STOP_SECONDS = 60.0  # that a job has to save its checkpoint and end


@dataclass(eq=False)
class Job:
    """A run of a sweep or search.

    Attributes:
        label: its name in messages.
        folder: its run folder, which holds `job.yaml` when it is started.
        overrides: what is typed for it.
        config: resolved, and without Hydra's part.
    """

    label: str
    folder: Path
    overrides: list[str]
    config: DictConfig


JobType = TypeVar("JobType", bound=Job)


class Pool(Generic[JobType]):
    """Starts jobs, watches them and ends them. Subclasses add what else happens then.

    Args:
        environments: extra environment variables of each slot; one job runs in each.
        log_to_file: write the output of jobs to `output.log` in their folders, not to the screen.
    """

    def __init__(self, environments: Sequence[dict[str, str]], log_to_file: bool):
        self.environments = environments
        self.log_to_file = log_to_file
        self._running: dict[int, tuple[JobType, BaseProcess]] = {}

    def on_start(self, job: JobType) -> None:
        """A job was started."""

    def should_stop(self, job: JobType) -> bool:
        """Whether to end a running job; asked several times a second."""
        return False

    def on_end(self, job: JobType) -> None:
        """A job has ended, and its folder says how."""

    def run(self, jobs: Iterator[JobType | None]) -> None:
        """Run jobs until there are no more and all have ended.

        An exception, Ctrl-C, SIGTERM and a closed terminal end the running jobs, which can be
        resumed.

        Args:
            jobs: advanced when a slot is free; None where there is no job at present.
        """
        with signals_as_exceptions():
            try:
                more = True
                while more or self._running:
                    self._poll()
                    more = more and self._fill(jobs)
                    time.sleep(POLL_SECONDS)
            except BaseException:
                self._stop_all()
                raise

    def _fill(self, jobs: Iterator[JobType | None]) -> bool:
        """Start jobs in the free slots; returns whether there may be more jobs."""
        for slot in range(len(self.environments)):
            if slot in self._running:
                continue
            try:
                job = next(jobs)
            except StopIteration:
                return False
            if job is None:
                return True
            self._start(slot, job)
        return True

    def _start(self, slot: int, job: JobType) -> None:
        (job.folder / "results.json").unlink(missing_ok=True)  # of an earlier part
        environment = {**os.environ, **self.environments[slot]}
        # For processes that Lightning starts; another `src` in the current folder is not taken.
        environment |= {"PYTHONPATH": python_path(), "PYTHONSAFEPATH": "1"}
        log = job.folder / "output.log" if self.log_to_file else None
        process = CONTEXT.Process(target=run_job, args=(job.folder, environment, log))
        process.start()
        self._running[slot] = job, process
        self.on_start(job)

    def _poll(self) -> None:
        for slot, (job, process) in list(self._running.items()):
            if process.exitcode is None and self.should_stop(job):
                process.terminate()
                _wait_or_kill(process)
            if process.exitcode is not None:
                del self._running[slot]
                _record_end(job, process.pid, process.exitcode)
                self.on_end(job)

    def _stop_all(self) -> None:
        for _, process in self._running.values():
            process.terminate()
        for job, process in self._running.values():
            _wait_or_kill(process)
            _record_end(job, process.pid, process.exitcode)
        self._running.clear()


def _wait_or_kill(process: BaseProcess) -> None:
    with suppress(KeyboardInterrupt):
        process.join(STOP_SECONDS)
    process.kill()
    process.join()


def _record_end(job: Job, pid: int | None, code: int | None) -> None:
    """Record the end of a job that could not do so itself, and end what it has left behind."""
    assert pid is not None and code is not None  # it was started, and has ended
    if code != 0 and os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    recorded = (job.folder / "results.json").is_file()
    if recorded and status(job.folder) not in ("waiting", "running"):
        return
    if code < 0:
        set_status(job.folder, "interrupted", f"ended by {signal.Signals(-code).name}")
    else:
        set_status(job.folder, "failed", f"ended with exit code {code} and without results")


def python_path() -> str:
    """PYTHONPATH with which a process finds this project from whatever folder it is started."""
    return os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and when the terminal is closed."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    handlers = {number: signal.getsignal(number) for number in numbers if number is not None}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
