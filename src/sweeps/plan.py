"""The plan of a sweep: every job is composed, checked and frozen before the first one starts.

A sweep that was cut off goes on when it is started again on its folder, and editing a YAML file
meanwhile changes nothing, whatever runs the jobs: processes, Hydra's own launcher, Ray or SLURM.
"""

import logging
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from ..config.cli import MODES
from ..config.console import show
from ..config.instantiate import instantiate_datamodule, instantiate_model, instantiate_task
from ..config.validate import validate
from ..errors import UserError
from ..runs.files import Lock, read_json
from ..runs.run_folder import RunFolder, last_checkpoint, status
from .compose import compose_job, expand_grid, freeze, frozen_config, restore
from .engines import check_engine, check_order, check_processes
from .job_files import OVERRIDES, job_folders, typed_for
from .pool import Job

log = logging.getLogger(__name__)


@dataclass
class SweepPlan:
    """The sweep that this process has started: its jobs by their numbers, and its lock."""

    jobs: dict[int, Job] = field(default_factory=dict)  # in the order of the command
    lock: Lock | None = None


PLAN = SweepPlan()  # Hydra makes the callback and the launcher; this is what they share


def plan_sweep(config: DictConfig) -> None:
    """Compose, check and freeze all jobs of a sweep.

    With `check=true` or `check=data` the program ends after the check.

    Raises:
        UserError: a job that cannot be built, a folder that holds another sweep or a running one,
            an engine that cannot run the jobs.
    """
    check_engine(config.hydra.launcher._target_)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return  # its jobs depend on one another
    folder = Path(config.hydra.sweep.dir).absolute()  # read first: all jobs find the same time
    grid = expand_grid(config)
    shared = set(grid[0]).intersection(*grid)
    numbers = _number_jobs(folder, grid)
    jobs = [compose_job(config, *pair) for pair in zip(numbers, grid, strict=True)]
    if len({job.folder for job in jobs}) < len(jobs):
        raise UserError(
            f"{len(jobs)} jobs share {len({job.folder for job in jobs})} folders.",
            "Let hydra.sweep.subdir name each job, as '${hydra:job.num}' does.",
        )
    for job in jobs:
        varying = [override for override in job.overrides if override not in shared]
        job.label += f" ({' '.join(varying)})" if varying else ""
        _check_mode(job.config)
        _check_settings(job)
        restore(job)
    check_order(config.hydra.launcher, numbers)
    check_processes(config.hydra.launcher, jobs)
    _check_jobs(jobs)
    PLAN.lock = _lock(folder, jobs)
    for job in jobs:
        _clear_failed(job.folder)
        freeze(job)
    PLAN.jobs = dict(enumerate(jobs))


def planned_job(config: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """A job of the plan; one that a sweeper has added since then is frozen now."""
    if number not in PLAN.jobs:
        PLAN.jobs[number] = compose_job(config, number, overrides)
        freeze(PLAN.jobs[number])
    return PLAN.jobs[number]


def _check_mode(config: DictConfig) -> None:
    for mode in MODES:
        if config.get(mode):
            raise UserError(f"{mode} is not possible in a sweep.", f"Leave out -m, or {mode}=...")


def _number_jobs(folder: Path, grid: Sequence[Sequence[str]]) -> list[int]:
    """The number of each job: that of the folder with its settings, or else the next free one."""
    known: dict[tuple[str, ...], list[int]] = {}
    held = [path for path in job_folders(folder) if path.name.isdecimal()]
    for path in held:
        settings = tuple(sorted(typed_for(path) or []))
        known.setdefault(settings, []).append(int(path.name))
    free = count(max((int(path.name) for path in held), default=-1) + 1)
    found = [known.get(tuple(sorted(overrides))) for overrides in grid]
    numbers = [numbers.pop(0) if numbers else next(free) for numbers in found]
    new = len(set(numbers) - {int(path.name) for path in held})
    if held and new:
        show(f"{new} of {len(grid)} jobs are new in {folder}, which holds {len(held)} jobs.")
    return numbers


def _check_settings(job: Job) -> None:
    """Refuse a folder that holds other settings, where `hydra.sweep.subdir` gives it to several."""
    if not (job.folder / OVERRIDES).exists():
        return
    before = typed_for(job.folder)
    if before is None or sorted(before) != sorted(job.overrides):
        what = "unknown settings" if before is None else " ".join(before)
        raise UserError(
            f"{job.folder} holds another job, with {what}.",
            "Leave out hydra.sweep.dir, or let hydra.sweep.subdir name each job.",
        )


def _lock(sweep: Path, jobs: Sequence[Job]) -> Lock:
    lock = Lock(sweep / ".lock")
    if not lock.acquire() or any(RunFolder(job.folder).is_used_elsewhere() for job in jobs):
        lock.release()
        raise UserError(
            f"Jobs of {sweep} are still running.", "Wait for them, or end them, and start again."
        )
    return lock


def _clear_failed(folder: Path) -> None:
    """Make room where a job failed: it starts again from its beginning."""
    if status(folder) != "failed" or RunFolder(folder).has_results():
        return
    for name in ("checkpoints", "tb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.csv", "results.json"):
        (folder / name).unlink(missing_ok=True)


def _check_jobs(jobs: Sequence[Job]) -> None:
    """Build what each unfinished job builds, without its data; `check=...` ends here."""
    only_check = bool(jobs[0].config.get("check"))
    passed, checked = True, set()
    for job in jobs:
        settings = tuple(item for item in job.overrides if not item.startswith("seed="))
        if settings in checked or status(job.folder) == "completed":
            continue
        checked.add(settings)
        config = job.config.copy()
        try:
            if only_check:
                from ..engine.check import check

                passed &= check(config, job.folder)
            else:
                validate(config)
                datamodule = instantiate_datamodule(config)
                instantiate_task(config, instantiate_model(config, datamodule), datamodule)
        except UserError as error:
            raise UserError(f"{job.label}: {error.problem}", error.remedy) from None
    if only_check:
        show(f"{len(jobs)} jobs, {len(checked)} of them different but for the seed.")
        sys.exit(0 if passed else 1)


def run_job(cfg: DictConfig, folder: Path) -> float:
    """Run a job in a process that Hydra, Ray or SLURM gave it.

    Args:
        cfg: the config that is composed now; what was frozen at the start of the sweep replaces it.

    Returns:
        What `train.py` returns; NaN for a job that failed, since an exception would end the sweep.
    """
    from ..engine.train import objective, train

    if status(folder) == "completed":
        return objective(read_json(folder / "results.json"))
    cfg = frozen_config(folder, cfg)
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        cfg.resume = str(checkpoint)
    try:
        return objective(train(cfg, folder))
    except UserError as error:
        log.error("%s %s", error.problem, error.remedy)
    except Exception:
        log.exception("The job failed.")
    return math.nan
