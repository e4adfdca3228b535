"""The launcher `hydra/launcher=processes`, the default: each job of a sweep in its own process.

Hydra looks for launchers in this folder and imports it at every start: nothing heavy up here.
"""

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep; those that an earlier start has finished are left alone.

    Args:
        n_jobs: jobs at a time; None is one for each GPU where there are several, else one.
    """

    def __init__(self, n_jobs: int | None = None):
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs; the callback of the sweep reports in the end which ones failed."""
        from src.sweeps.launcher import launch

        return launch(self.config, self.n_jobs, job_overrides, initial_job_idx)
