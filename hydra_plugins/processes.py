"""The launcher of sweeps on one machine (`hydra/launcher=processes`, the default): each job in a process of its own.

So several run at a time, each with its share of the CPU's threads and a GPU of its own where there are several; a job that crashes takes
nothing with it, memory is given back, and a job may itself be made of several processes (`trainer=ddp`).
Hydra looks for launchers in this folder, beside `train.py`, and imports it at every start: nothing heavy up here.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

if TYPE_CHECKING:
    from src.sweep import Job

log = logging.getLogger(__name__)


class ProcessLauncher(Launcher):
    """Runs the jobs that `src.sweep.plan` has written down; what an earlier start has finished is left alone.

    Args:
        n_jobs: how many at a time; None is one a GPU where there are several, else one.
    """

    def __init__(self, n_jobs: int | None = None):
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context, task_function, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, however they end; `src.sweep.Sweep` tells in the end which ones failed."""
        from src.job_folder import hold, record, status
        from src.run_folder import read_json
        from src.sweep import planned

        folder = Path(self.config.hydra.sweep.dir).absolute()
        jobs = [planned(self.loader, self.config, initial_job_idx + i, overrides) for i, overrides in enumerate(job_overrides)]
        unfinished = [job for job in jobs if status(job.folder) != "completed"]
        for job in unfinished:
            if status(job.folder) == "running":
                record(job.folder, "interrupted", "cut off without a word")
        if len(unfinished) < len(jobs):
            print(f"{len(jobs) - len(unfinished)} of {len(jobs)} jobs were finished before.", flush=True)
        try:
            Pool(unfinished, self.n_jobs, folder, hold(folder)).run()
        except KeyboardInterrupt:
            print(f"\nStopped. To go on, type the same command with hydra.sweep.dir={folder}", file=sys.stderr)
            sys.exit(130)
        finally:
            _sum_up(folder)
        returned = []
        for job in jobs:
            returned.append(JobReturn(overrides=job.overrides, cfg=job.config, working_dir=os.getcwd(), status=JobStatus.COMPLETED))
            returned[-1].return_value = (read_json(job.folder / "results.json").get("val") or {}).get("loss", math.nan)
        return returned


class Pool:
    """Processes for jobs, some at a time.

    Args:
        jobs: in the order in which they are started.
        n_jobs: see `ProcessLauncher`.
        folder: of the sweep.
        lock: open file that the jobs inherit: the sweep counts as running until the last of them is gone.
    """

    def __init__(self, jobs: Sequence["Job"], n_jobs: int | None, folder: Path, lock: int | None):
        from src.sweep import num_processes

        self.waiting, self.total, self.folder, self.lock = list(jobs), len(jobs), folder, lock
        self.running: dict[int, tuple[Job, subprocess.Popen]] = {}
        most = max((num_processes(job.config.trainer) for job in jobs), default=1)
        gpus = visible_gpus([job.config.trainer for job in jobs])
        shares = [gpus[i : i + most] for i in range(0, len(gpus) - most + 1, most)]
        self.width = max(1, min(n_jobs or len(shares), len(jobs)))
        self.gpus = [shares[slot % len(shares)] if len(shares) > 1 else None for slot in range(self.width)]
        self.threads = max(1, cores() // (self.width if gpus else self.width * most))

    def run(self) -> None:
        """Until all jobs have ended. Whoever ends the sweep ends its jobs too; they can be resumed."""
        with signals_raise():
            try:
                while self.waiting or self.running:
                    for slot in range(self.width):
                        if slot in self.running and self.running[slot][1].poll() is not None:
                            self._ended(*self.running.pop(slot))
                        if slot not in self.running and self.waiting:
                            self._start(slot, self.waiting.pop(0))
                    time.sleep(0.1)
            except BaseException:
                for _, process in self.running.values():
                    process.terminate()
                for job, process in self.running.values():
                    try:
                        process.wait(60)
                    except (subprocess.TimeoutExpired, KeyboardInterrupt):
                        process.kill()
                        process.wait()
                    self._ended(job, process)
                raise

    def _start(self, slot: int, job: "Job") -> None:
        from src.job_folder import FROZEN, last_checkpoint

        (job.folder / "results.json").unlink(missing_ok=True)  # of the part that was cut off
        config = job.folder / FROZEN
        command = [sys.executable, os.path.abspath(sys.argv[0]), "--config-path", str(config.parent), "--config-name", config.stem]
        if last := last_checkpoint(job.folder):
            command.append(f"resume={last}")
        environment = dict(os.environ)
        if self.width > 1:
            environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        if gpus := self.gpus[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with open(job.folder / "output.log" if self.width > 1 else os.devnull, "ab") as output:
            shown = self.width == 1  # the screen belongs to the one job that runs
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=None if shown else output,
                stderr=None if shown else subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches the sweep alone, and each job is ended once
                pass_fds=() if self.lock is None else (self.lock,),
            )
        self.running[slot] = job, process
        print(f"[{self.total - len(self.waiting)}/{self.total}] {job}{' goes on' if last else ''}: {job.folder}", flush=True)
        _sum_up(self.folder)

    def _ended(self, job: "Job", process: subprocess.Popen) -> None:
        from src.job_folder import record, status
        from src.sweep_summary import line

        if status(job.folder) in ("waiting", "running"):  # it could not tell itself
            code = process.returncode
            if code < 0:
                record(job.folder, "interrupted", f"ended by {signal.Signals(-code).name}")
            else:
                record(job.folder, "failed", f"ended with exit code {code} before it could say why")
        print(f"{job}: {line(job.folder)}", flush=True)
        _sum_up(self.folder)


def _sum_up(folder: Path) -> None:
    """Write the summary, which must never cost a job."""
    from src.sweep_summary import write_summary

    try:
        write_summary(folder)
    except Exception:
        log.warning("The summary of %s could not be written.", folder, exc_info=True)


def visible_gpus(trainers: Sequence[DictConfig]) -> list[str]:
    """GPUs to give out, as CUDA_VISIBLE_DEVICES names them; none where the configs of the trainers do not leave the choice open."""
    if any(t.accelerator not in ("auto", "gpu", "cuda") or not isinstance(t.devices, int | str | None) for t in trainers):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM and a closed terminal end the sweep as an exception does."""

    def end(number: int, frame) -> None:
        sys.exit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
