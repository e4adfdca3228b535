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
from pathlib import Path

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ..config.cli import MODES
from ..config.stored import read_stored_config
from ..errors import UserError
from ..runs.files import Lock, read_json
from ..runs.run_folder import RunFolder, last_checkpoint, status
from .compose import compose_job, expand_grid, freeze, frozen_config
from .engines import check_engine, check_processes
from .summary import OVERRIDES
from .worker import JOB_CONFIG

log = logging.getLogger(__name__)


@dataclass
class PlannedJob:
    """A job of a sweep.

    Attributes:
        number: its place in the sweep.
        overrides: what is typed for it.
        folder: its run folder.
        config: its config, resolved and without Hydra's part.
        varying: those of its overrides that not all jobs share.
    """

    number: int
    overrides: list[str]
    folder: Path
    config: DictConfig
    varying: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        settings = f" ({' '.join(self.varying)})" if self.varying else ""
        return f"Job {self.number}{settings}"


class SweepPlan:
    """The sweep that this process has started: its jobs by their numbers, and its lock."""

    def __init__(self) -> None:
        self.jobs: dict[int, PlannedJob] = {}
        self.lock: Lock | None = None

    def clear(self) -> None:
        """Forget the sweep and release its folder."""
        self.jobs.clear()
        if self.lock is not None:
            self.lock.release()
            self.lock = None


PLAN = SweepPlan()  # Hydra makes the callback and the launcher; this is what they share


def plan_sweep(config: DictConfig) -> None:
    """Compose, check and freeze all jobs of a sweep.

    With `check=true` or `check=data` the program ends after the check.

    Args:
        config: of the sweep, with Hydra's part.

    Raises:
        UserError: a job that cannot be built, a folder that holds another sweep or a running one,
            an engine that cannot run the jobs.
    """
    check_engine(config.hydra.launcher._target_)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return  # its jobs depend on one another
    folder = Path(config.hydra.sweep.dir).absolute()  # read first: all jobs find the same time
    loader = GlobalHydra.instance().config_loader()
    grid = expand_grid(loader, config)
    jobs = [_compose(loader, config, i, overrides) for i, overrides in enumerate(grid)]
    shared = set(grid[0]).intersection(*grid)
    for job in jobs:
        job.varying = [override for override in job.overrides if override not in shared]
        _check_mode(job)
        _check_same_sweep(folder, job)
        job.config = frozen_config(job.folder, job.config, job.label)
    check_processes(config, jobs)
    _check_jobs(jobs)
    PLAN.lock = _lock(folder, jobs)
    for job in jobs:
        _clear_failed(job.folder)
        freeze(job.folder, job.config, job.overrides)
    PLAN.jobs = {job.number: job for job in jobs}


def planned_job(
    loader: ConfigLoader, config: DictConfig, number: int, overrides: Sequence[str]
) -> PlannedJob:
    """A job of the plan; one that a sweeper has added since then is frozen now."""
    if number not in PLAN.jobs:
        job = _compose(loader, config, number, overrides)
        freeze(job.folder, job.config, job.overrides)
        PLAN.jobs[number] = job
    return PLAN.jobs[number]


def _compose(
    loader: ConfigLoader, config: DictConfig, number: int, overrides: Sequence[str]
) -> PlannedJob:
    folder, resolved = compose_job(loader, config, number, overrides)
    return PlannedJob(number, list(overrides), folder, resolved)


def _check_mode(job: PlannedJob) -> None:
    for mode in MODES:
        if job.config.get(mode):
            raise UserError(f"{mode} is not possible in a sweep.", f"Leave out -m, or {mode}=...")


def _check_same_sweep(sweep: Path, job: PlannedJob) -> None:
    path = job.folder / OVERRIDES
    if not path.is_file():
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    if sorted(before) != sorted(job.overrides):
        raise UserError(
            f"{sweep} holds another sweep: its job {job.number} is {' '.join(before)}.",
            "Type the command that it was started with, or leave out hydra.sweep.dir.",
        )


def _lock(sweep: Path, jobs: Sequence[PlannedJob]) -> Lock:
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


def _check_jobs(jobs: Sequence[PlannedJob]) -> None:
    """Build what each unfinished job builds, without its data; `check=...` ends here."""
    only_check = bool(jobs[0].config.get("check"))
    passed, checked = True, set()
    for job in jobs:
        settings = tuple(item for item in job.overrides if not item.startswith("seed="))
        if settings in checked or status(job.folder) == "completed":
            continue
        checked.add(settings)
        try:
            passed &= _check_job(job.config.copy(), job.folder, only_check)
        except UserError as error:
            raise UserError(f"{job.label}: {error.problem}", error.remedy) from None
    if only_check:
        print(f"{len(jobs)} jobs, {len(checked)} of them different but for the seed.")
        sys.exit(0 if passed else 1)


def _check_job(config: DictConfig, folder: Path, only_check: bool) -> bool:
    """Build the objects of a job; returns whether its data, where they are read, are in order."""
    if only_check:
        from ..engine.check import check

        return check(config, folder)
    from ..config.instantiate import instantiate_datamodule, instantiate_model, instantiate_task
    from ..config.validate import validate

    validate(config)
    datamodule = instantiate_datamodule(config)
    instantiate_task(config, instantiate_model(config, datamodule), datamodule)
    return True


def run_job(cfg: DictConfig, folder: Path) -> float:
    """Run a job in a process that Hydra, Ray or SLURM gave it.

    Args:
        cfg: the config that is composed now; what was frozen at the start of the sweep replaces it.
        folder: of the job.

    Returns:
        What `train.py` returns; NaN for a job that failed, since an exception would end the sweep.
    """
    from ..engine.train import objective, train

    if status(folder) == "completed":
        return objective(read_json(folder / "results.json"))
    if (folder / JOB_CONFIG).is_file():
        cfg = OmegaConf.create(read_stored_config(folder / JOB_CONFIG, cfg))
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
