"""Sweeps (`-m`): every job is composed, checked and written down before the first one starts.

So a sweep can be cut off anywhere and started again on its folder, and editing a YAML file meanwhile changes nothing, whatever runs the
jobs: the processes of `hydra_plugins/processes.py`, Hydra's own launcher, Ray or SLURM.
"""

import copy
import importlib.util
import json
import logging
import math
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.command_line import two_line_errors
from src.errors import UserError
from src.job_folder import FROZEN, OVERRIDES, hold, last_checkpoint, status
from src.run_folder import read_json, write_text
from src.stored_config import stored_config

log = logging.getLogger(__name__)
EXTRAS = {"hydra_ray_launcher": "ray", "hydra_submitit_launcher": "slurm"}


class Sweep(Callback):
    """What Hydra calls around a sweep and its jobs; named in `conf/config.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        try:
            with two_line_errors():
                plan(config)
        except (HydraException, OmegaConfBaseException):
            return  # the sweeper is about to find the same, where Hydra lets it through
        except Exception:  # Hydra would only warn, and start the jobs
            traceback.print_exc()
            sys.exit(1)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:  # in the process of the job: the sweep's own may be on another machine
            from src.sweep_summary import write_summary

            write_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        from src.sweep_summary import table, write_summary

        folder = Path(config.hydra.sweep.dir).absolute()
        rows = write_summary(folder)
        print(f"\n{table(folder)}\n{folder}", flush=True)
        if any(row["status"] != "completed" for row in rows):
            print(f"To run what is missing, type the same command with hydra.sweep.dir={folder}", flush=True)
            sys.exit(1)


@dataclass
class Job:
    """One job of a sweep: its number, what is typed for it, its folder, its config, resolved, and what
    Hydra needs to know to run it on its own."""

    number: int
    overrides: list[str]
    folder: Path
    config: DictConfig
    hydra: dict
    varying: list[str]  # those of its overrides that not all jobs share

    def __str__(self) -> str:
        return f"Job {self.number} ({' '.join(self.varying)})" if self.varying else f"Job {self.number}"


PLANNED: dict[int, Job] = {}  # of the sweep that this process has started


def plan(config: DictConfig) -> None:
    """Compose all jobs of a sweep, check them, and write them down.

    Args:
        config: the sweep's own, with Hydra's part.

    Raises:
        UserError: a job that cannot be built, a folder that holds another sweep, an engine that cannot run the jobs.
    """
    target = config.hydra.launcher._target_
    package = target.split(".")[1]
    if package in EXTRAS:
        if importlib.util.find_spec(f"hydra_plugins.{package}") is None:
            raise UserError(f"{target} is not installed.", f'Install it: pip install -e ".[{EXTRAS[package]}]"')
        if target.endswith(".SlurmLauncher") and shutil.which("sbatch") is None:
            raise UserError("There is no sbatch: this machine belongs to no SLURM cluster.", "Start the sweep on a login node.")
        # Its processes find this project however it was started.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return  # a sweeper that thinks of its jobs as it goes
    sweep = config.hydra.sweep.dir  # read first: every job then finds the same time of day in it
    loader = GlobalHydra.instance().config_loader()
    typed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()] + list(config.hydra.overrides.task)
    (grid,) = BasicSweeper.split_arguments(OverridesParser.create(config_loader=loader).parse_overrides(typed), None)
    jobs = [compose(loader, config, number, overrides) for number, overrides in enumerate(grid)]
    common = set(grid[0]).intersection(*grid)
    for job in jobs:
        job.varying = [override for override in job.overrides if override not in common]
    for job in jobs:
        known = job.folder / OVERRIDES
        if known.is_file() and sorted(before := OmegaConf.to_container(OmegaConf.load(known))) != sorted(job.overrides):
            raise UserError(
                f"{sweep} holds another sweep: its job {job.number} is {' '.join(before)}.",
                "Type the command that it was started with, or leave out hydra.sweep.dir.",
            )
        if (job.folder / FROZEN).is_file():
            frozen = OmegaConf.create(stored_config(job.folder / FROZEN, job.config))
            if frozen != job.config:
                log.warning("%s keeps the settings that the sweep was started with; the YAML files now say something else.", job)
            job.config = frozen
    _refuse_lockstep(config, jobs)
    _check(jobs)
    if target.endswith(".ProcessLauncher"):
        hold(Path(sweep).absolute())
    for job in jobs:
        _write(job)
    PLANNED.update({job.number: job for job in jobs})


def planned(loader: ConfigLoader, config: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """A job that `plan` has written down; one that a sweeper thought of since then is written down now."""
    if number not in PLANNED:
        PLANNED[number] = compose(loader, config, number, overrides)
        _write(PLANNED[number])
    return PLANNED[number]


def compose(loader: ConfigLoader, config: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """One job as the YAML files and the command line say now."""
    from src.build import complete

    composed = loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)  # for ${hydra:...}
    try:
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        own = copy.deepcopy(composed)
        with open_dict(own):
            del own["hydra"]
        own = OmegaConf.create(OmegaConf.to_container(own, resolve=True))
    finally:
        HydraConfig.instance().cfg = before
    complete(own)
    hydra = {
        "run": {"dir": str(folder)},
        "output_subdir": None,
        "verbose": composed.hydra.verbose,
        "job": {"name": composed.hydra.job.name, "env_set": OmegaConf.to_container(composed.hydra.job.env_set)},
        "job_logging": OmegaConf.to_container(composed.hydra.job_logging, resolve=False),
    }
    return Job(number, list(overrides), folder, own, hydra, list(overrides))


def num_processes(trainer: DictConfig) -> int:
    """How many processes a job consists of."""
    devices = trainer.devices
    if isinstance(devices, str) and "," in devices:
        devices = devices.strip("[]").split(",")
    if not isinstance(devices, int | str):
        count = len(devices)
    elif str(devices) in ("auto", "-1"):
        import torch

        count = max(torch.cuda.device_count(), 1) if trainer.accelerator in ("auto", "gpu", "cuda") else 1
    else:
        count = int(devices)
    return count * trainer.num_nodes


def _refuse_lockstep(config: DictConfig, jobs: Sequence[Job]) -> None:
    """Several processes a job only where each job has a process of its own: Lightning starts the others by repeating the command line,
    and each of them would walk through the whole sweep again."""
    launcher = config.hydra.launcher
    engine = launcher._target_.rpartition(".")[2]
    for job in jobs:
        count = num_processes(job.config.trainer)
        if count == 1 or engine == "ProcessLauncher" or str(job.config.trainer.strategy).endswith(("_spawn", "_fork")):
            continue
        if engine == "SlurmLauncher":
            tasks = (launcher.nodes, launcher.tasks_per_node)
            if tasks == (job.config.trainer.num_nodes, count // job.config.trainer.num_nodes):
                continue
            raise UserError(
                f"{job} takes {count} processes, but SLURM is asked for {tasks[0]} nodes with {tasks[1]} each.",
                "Say how many with trainer.num_nodes=... trainer.devices=..., the same for all jobs of the sweep.",
            )
        raise UserError(
            f"{job} takes {count} processes, and {engine} gives a job no process of its own to start them from.",
            "Take hydra/launcher=processes or hydra/launcher=submitit_slurm, or one device a job.",
        )


def _check(jobs: Sequence[Job]) -> None:
    """Build what each unfinished job would build, but for its data. With `check=true` or `check=data` that is all: the program ends."""
    from src.build import build

    asked = jobs[0].config.get("check")
    in_order, seen = True, set()
    for job in jobs:
        config = OmegaConf.merge(job.config, {"seed": 0})
        text = json.dumps(OmegaConf.to_container(config), default=str)
        if text in seen or status(job.folder) == "completed":
            continue
        seen.add(text)
        try:
            if asked:
                from src.training import check_only

                in_order &= check_only(config, job.folder)
            else:
                build(config)
        except UserError as error:
            raise UserError(f"{job}: {error.problem}", error.remedy) from None
    if asked:
        print(f"{len(jobs)} jobs, {len(seen)} of them different but for the seed.")
        sys.exit(0 if in_order else 1)


def _write(job: Job) -> None:
    """Write a job down, and make room where it failed: it is repeated from its start."""
    if status(job.folder) == "failed":
        for folder in ("checkpoints", "tb"):
            shutil.rmtree(job.folder / folder, ignore_errors=True)
        for name in ("metrics.csv", "results.json"):
            (job.folder / name).unlink(missing_ok=True)
    (job.folder / FROZEN).parent.mkdir(parents=True, exist_ok=True)
    write_text(job.folder / FROZEN, OmegaConf.to_yaml(OmegaConf.merge(job.config, {"hydra": job.hydra})))  # the folder may have moved
    write_text(job.folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(job.overrides)))


def run_job(cfg: DictConfig, folder: Path) -> float:
    """One job in a process that Hydra, Ray or SLURM gave it.

    Args:
        cfg: as composed just now; it gives way to what was written down when the sweep was started.
        folder: of the job.

    Returns:
        What `train.py` returns; NaN for a job that failed, since an exception would take the other jobs with it.
    """
    from src.training import objective, train

    if status(folder) == "completed":
        return objective(read_json(folder / "results.json"))
    if (folder / FROZEN).is_file():
        cfg = OmegaConf.load(folder / FROZEN)
        del cfg["hydra"]
    if (last := last_checkpoint(folder)) is not None:
        cfg.resume = str(last)
    try:
        return objective(train(cfg, folder))
    except UserError as error:
        log.error("%s %s", error.problem, error.remedy)
    except Exception:
        log.exception("The job failed.")
    return math.nan
