"""Weights & Biases: Lightning's logger, with one W&B run for a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ..errors import UserError
from ..runs.files import write_text


class WandB(WandbLogger):
    """Lightning's WandbLogger, with the plots of the report.

    A resumed run continues its W&B run, whose ID is in the file `wandb_run_id`.

    Args:
        save_dir: the run folder; its last two names are the name of the W&B run.
        options: further arguments of WandbLogger and `wandb.init`.
    """

    def __init__(self, save_dir: str | Path, **options: Any):
        self.run_dir = Path(save_dir)
        self._id_file = self.run_dir / "wandb_run_id"
        self._has_results = False
        if self._id_file.is_file():
            options["id"] = self._id_file.read_text(encoding="utf-8").strip()
        name = "/".join(self.run_dir.parts[-2:])
        try:
            super().__init__(name=name, save_dir=save_dir, **options)
        except ModuleNotFoundError:
            raise UserError(
                "W&B is not installed.", 'Install the extra: pip install -e ".[wandb]"'
            ) from None
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, whatever its value

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run. The first use starts it, or continues it."""
        if self._experiment is None:
            run = super().experiment
            write_text(self._id_file, f"{run.id}\n")
            # A link out of the run folder, which a folder must not have to be resumed.
            Path(run.settings.log_dir, "debug-core.log").unlink(missing_ok=True)
        return self._experiment

    def log_results(self, settings: Any, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of the best checkpoint; the run ends when the trainer has finished."""
        self.log_metrics({f"results/{name}": value for name, value in metrics.items()}, step)
        self._has_results = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the plots and end the run, unless a test is still to come."""
        super().finalize(status)
        failed = status != "success"
        if self._experiment is None or not (self._has_results or failed):
            return
        for plot in sorted((self.run_dir / "plots").glob("*.png")):
            self.log_image(f"plots/{plot.stem}", [str(plot)])
        self._experiment.finish(exit_code=int(failed))
        self._experiment = None
