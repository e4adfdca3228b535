"""MLflow: Lightning's logger, with one MLflow run for a run folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ..errors import UserError
from ..runs.files import Lock, write_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class MLflow(MLFlowLogger):
    """Lightning's MLFlowLogger, with the plots and `report.html` of the run as artifacts.

    A resumed run continues its MLflow run, whose ID is in the file `mlflow_run_id`.

    Args:
        save_dir: the run folder; its last two names are the name of the MLflow run.
        tracking_uri: None is `MLFLOW_TRACKING_URI`, or else MLflow's own default: `mlflow.db` in
            the working directory, which `mlflow server` shows.
        options: further arguments of MLFlowLogger.
    """

    def __init__(self, save_dir: str | Path, tracking_uri: str | None = None, **options: Any):
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # not each step of a new database
        self.run_dir = Path(save_dir)
        self._id_file = self.run_dir / "mlflow_run_id"
        if self._id_file.is_file():
            options["run_id"] = self._id_file.read_text(encoding="utf-8").strip()
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        name = "/".join(self.run_dir.parts[-2:])
        # Jobs of a sweep make the database at the same time, which MLflow does not expect.
        lock = Lock(f"{uri.removeprefix('sqlite:///')}.lock") if "sqlite:" in uri else None
        if lock is not None:
            lock.acquire(wait=True)
        try:
            super().__init__(run_name=name, tracking_uri=uri, **options)
        except ModuleNotFoundError:
            raise UserError(
                "MLflow is not installed.", 'Install the extra: pip install -e ".[mlflow]"'
            ) from None
        finally:
            if lock is not None:
                lock.release()

    @property
    @rank_zero_experiment
    def experiment(self) -> "MlflowClient":
        """MLflow's client. The first use starts the MLflow run, or continues it."""
        if not self._initialized:
            import mlflow

            mlflow.set_tracking_uri(self._tracking_uri)
            if self._run_id is None:
                # Jobs of a sweep make it at the same time, which Lightning's logger cannot.
                mlflow.set_experiment(self._experiment_name)
            self._start()
            write_text(self._id_file, f"{self._run_id}\n")
        return self._mlflow_client

    def _start(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client = super().experiment
        except MlflowException as error:
            if self._run_id is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UserError(
                f"MLflow has no run {self._run_id} at {self._tracking_uri}.",
                f"Set MLFLOW_TRACKING_URI as it was before, or remove {self._id_file}.",
            ) from None
        client.update_run(self._run_id, status="RUNNING")  # of a resumed run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Log settings, flat. MLflow changes none: those that a resumed run changes stay."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({k: v for k, v in params.items() if k not in known})

    def log_results(self, settings: Any, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of the best checkpoint."""
        self.log_metrics({f"results/{name}": value for name, value in metrics.items()}, step)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Log the report, where there is one, and set the status."""
        if self._initialized:
            for path in (self.run_dir / "report.html", self.run_dir / "plots"):
                if path.is_dir():
                    self.experiment.log_artifacts(self.run_id, str(path), path.name)
                elif path.is_file():
                    self.experiment.log_artifact(self.run_id, str(path))
        super().finalize(status)
