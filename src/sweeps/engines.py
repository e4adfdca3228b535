"""What runs the jobs of a sweep: whether it is installed, and whether it can start their processes.

Lightning starts the other processes of a run by repeating its command. That is the command of one
job with `hydra/launcher=processes`. With the other engines it would be that of the whole sweep.
"""

import importlib.util
import os
import shutil
from collections.abc import Sequence

from omegaconf import DictConfig

from ..errors import UserError
from .pool import Job, python_path
from .resources import num_processes

EXTRAS = {"hydra_ray_launcher": "ray", "hydra_submitit_launcher": "slurm"}


def check_engine(target: str) -> None:
    """Check that the launcher with this `_target_` is installed.

    Raises:
        UserError: it is not, or there is no SLURM here.
    """
    package = target.split(".")[1]
    if package not in EXTRAS:
        return
    if importlib.util.find_spec(f"hydra_plugins.{package}") is None:
        raise UserError(
            f"{target} is not installed.", f'Install it: pip install -e ".[{EXTRAS[package]}]"'
        )
    if target.endswith(".SlurmLauncher") and shutil.which("sbatch") is None:
        raise UserError(
            "There is no sbatch: this machine does not belong to a SLURM cluster.",
            "Start the sweep on a login node.",
        )
    os.environ["PYTHONPATH"] = python_path()  # for the processes of Ray and SLURM


def check_order(launcher: DictConfig, numbers: Sequence[int]) -> None:
    """Check that the launcher can run jobs with these numbers.

    Raises:
        UserError: it numbers them itself, in the order of the command.
    """
    if not launcher._target_.endswith(".ProcessLauncher") and list(numbers) != list(
        range(len(numbers))
    ):
        raise UserError(
            "The jobs of this command are in another order in the folder of the sweep.",
            "Type its command again, or leave out hydra/launcher=... .",
        )


def check_processes(launcher: DictConfig, jobs: Sequence[Job]) -> None:
    """Check that the launcher can run jobs of several processes.

    Raises:
        UserError: it cannot.
    """
    engine = launcher._target_.rpartition(".")[2]
    for job in jobs:
        trainer = job.config.trainer
        count = num_processes(trainer)
        spawned = str(trainer.strategy).endswith(("_spawn", "_fork"))
        if count == 1 or spawned or engine == "ProcessLauncher":
            continue
        if engine != "SlurmLauncher":
            raise UserError(
                f"{job.label} takes {count} processes, and {engine} gives a job no process of its "
                "own to start them from.",
                "Choose hydra/launcher=processes or hydra/launcher=submitit_slurm, or one device "
                "per job.",
            )
        nodes, tasks = launcher.nodes, launcher.tasks_per_node
        if (nodes, tasks) != (trainer.num_nodes, count // trainer.num_nodes):
            raise UserError(
                f"{job.label} takes {count} processes, but SLURM is asked for {nodes} nodes with "
                f"{tasks} each.",
                "Set trainer.num_nodes=... trainer.devices=..., the same for all jobs.",
            )
