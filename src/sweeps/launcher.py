"""What Hydra calls during a sweep: a callback around it, and the launcher of jobs in processes.

Hydra imports this file at every start: nothing heavy up here.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from ..config.cli import two_line_errors
from ..config.console import show
from ..runs.files import read_json
from ..runs.reading import number
from ..runs.run_folder import last_checkpoint, set_status, status
from .pool import Job, Pool
from .processes import start_server


class SweepCallback(Callback):
    """Plans a sweep before its first job and summarizes it; named in conf/config.yaml."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        if config.hydra.launcher._target_.endswith(".ProcessLauncher") and not config.get("check"):
            start_server()
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
        show(f"\n{format_summary(folder)}\n{folder}")
        if (jobs["status"] != "completed").any():
            show(_how_to_continue(folder))
            sys.exit(1)


def _how_to_continue(folder: Path) -> str:
    return f"To run what is missing, type the same command with hydra.sweep.dir={folder}"


class SweepPool(Pool[Job]):
    """Prints and summarizes how the jobs of a sweep start and end."""

    def __init__(self, folder: Path, environments: Sequence[dict[str, str]], num_jobs: int):
        super().__init__(environments, log_to_file=len(environments) > 1)
        self.folder = folder
        self.num_jobs = num_jobs
        self.num_started = 0

    def on_start(self, job: Job) -> None:
        from .summary import update_summary

        self.num_started += 1
        resumed = " is resumed" if last_checkpoint(job.folder) else ""
        place = f"[{self.num_started}/{self.num_jobs}]"
        show(f"{place} {job.label}{resumed}: {job.folder}")
        update_summary(self.folder)

    def on_end(self, job: Job) -> None:
        from .job_files import describe_result
        from .summary import update_summary

        show(f"{job.label}: {describe_result(job.folder)}")
        update_summary(self.folder)


def launch(
    config: DictConfig,
    slots: int | None,
    job_overrides: Iterable[Sequence[str]],
    first_number: int,
) -> list[JobReturn]:
    """Run jobs of a sweep, each in a process of its own, however they end.

    Args:
        slots: jobs at a time; None is one for each GPU where there are several, else one.
    """
    from .plan import planned_job
    from .resources import slot_environments
    from .summary import update_summary

    folder = Path(config.hydra.sweep.dir).absolute()
    jobs = [
        planned_job(config, number, overrides)
        for number, overrides in enumerate(job_overrides, first_number)
    ]
    unfinished = [job for job in jobs if status(job.folder) != "completed"]
    for job in unfinished:
        if status(job.folder) == "running":
            set_status(job.folder, "interrupted", "cut off")
    if len(unfinished) < len(jobs):
        finished = len(jobs) - len(unfinished)
        show(f"{finished} of {len(jobs)} jobs were finished before.")
    trainers = [job.config.trainer for job in unfinished]
    environments = slot_environments(trainers, slots, len(unfinished))
    for environment in environments:
        environment |= {key: str(value) for key, value in config.hydra.job.env_set.items()}
    try:
        SweepPool(folder, environments, len(unfinished)).run(iter(unfinished))
    except KeyboardInterrupt:
        show(f"\nStopped. {_how_to_continue(folder)}", error=True)
        sys.exit(130)
    finally:
        update_summary(folder)
    return [_job_return(job) for job in jobs]


def _job_return(job: Job) -> JobReturn:
    """The validation loss of a job. Hydra would end the sweep if its status were failed."""
    result = JobReturn(overrides=job.overrides, cfg=job.config, status=JobStatus.COMPLETED)
    result.return_value = number(read_json(job.folder / "results.json"), "val", "loss")
    return result
