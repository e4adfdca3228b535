"""What Hydra calls during a sweep: a callback around it, and the launcher of jobs in processes."""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from ..runs.run_folder import last_checkpoint, read_json, set_status, status

if TYPE_CHECKING:
    from .plan import PlannedJob
    from .pool import Pool


class SweepCallback(Callback):
    """Plans a sweep before its first job and summarizes it; named in conf/config.yaml."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        from ..config.cli import two_line_errors
        from .plan import plan_sweep

        with two_line_errors():  # Hydra would warn only, and start the jobs
            plan_sweep(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        """In the process of the job, which may be on another machine than the sweep."""
        if config.hydra.mode == RunMode.MULTIRUN:
            from .summary import update_summary

            update_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        from .summary import format_summary, write_summary

        folder = Path(config.hydra.sweep.dir).absolute()
        jobs = write_summary(folder)
        print(f"\n{format_summary(folder)}\n{folder}", flush=True)
        if (jobs["status"] != "completed").any():
            print(_how_to_continue(folder), flush=True)
            sys.exit(1)


def _how_to_continue(folder: Path) -> str:
    return f"To run what is missing, type the same command with hydra.sweep.dir={folder}"


def launch(
    loader: ConfigLoader,
    config: DictConfig,
    slots: int | None,
    job_overrides: Sequence[Sequence[str]],
    first_number: int,
) -> list[JobReturn]:
    """Run jobs of a sweep, each in a process of its own, however they end.

    Args:
        loader: Hydra's.
        config: of the sweep.
        slots: jobs at a time; None is one for each GPU where there are several, else one.
        job_overrides: of each job.
        first_number: of the first one.
    """
    from .plan import planned_job
    from .summary import update_summary

    folder = Path(config.hydra.sweep.dir).absolute()
    jobs = [
        planned_job(loader, config, first_number + i, overrides)
        for i, overrides in enumerate(job_overrides)
    ]
    unfinished = [job for job in jobs if status(job.folder) != "completed"]
    for job in unfinished:
        if status(job.folder) == "running":
            set_status(job.folder, "interrupted", "cut off")
    if len(unfinished) < len(jobs):
        finished = len(jobs) - len(unfinished)
        print(f"{finished} of {len(jobs)} jobs were finished before.", flush=True)
    try:
        _make_pool(config, slots, unfinished).run(iter(unfinished))
    except KeyboardInterrupt:
        print(f"\nStopped. {_how_to_continue(folder)}", file=sys.stderr)
        sys.exit(130)
    finally:
        update_summary(folder)
    return [_job_return(job) for job in jobs]


def _make_pool(
    config: DictConfig, slots: int | None, jobs: Sequence["PlannedJob"]
) -> "Pool[PlannedJob]":
    """The pool for these jobs; it prints and summarizes how each of them starts and ends."""
    from .pool import Pool
    from .resources import slot_environments
    from .summary import describe_result, update_summary

    folder = Path(config.hydra.sweep.dir).absolute()

    def report_start(job: "PlannedJob") -> None:
        resumed = " is resumed" if last_checkpoint(job.folder) else ""
        place = f"[{jobs.index(job) + 1}/{len(jobs)}]"
        print(f"{place} {job.label}{resumed}: {job.folder}", flush=True)
        update_summary(folder)

    def report_end(job: "PlannedJob") -> None:
        print(f"{job.label}: {describe_result(job.folder)}", flush=True)
        update_summary(folder)

    trainers = [job.config.trainer for job in jobs]
    environments = slot_environments(trainers, slots, len(jobs))
    for environment in environments:
        environment |= {key: str(value) for key, value in config.hydra.job.env_set.items()}
    return Pool(environments, len(environments) > 1, report_start, on_end=report_end)


def _job_return(job: "PlannedJob") -> JobReturn:
    result = JobReturn(
        overrides=job.overrides,
        cfg=job.config,
        working_dir=os.getcwd(),
        status=JobStatus.COMPLETED,  # Hydra would end the sweep at a failed one
    )
    validation = read_json(job.folder / "results.json").get("val") or {}
    result.return_value = validation.get("loss", math.nan)
    return result
