"""The report of a run, written when it has ended."""

import os
from pathlib import Path
from typing import Any

import lightning as L

from .base import EpochCallback
from .run_description import run_title


class Report(EpochCallback):
    """Writes `report.html` and the plots into the run folder.

    This happens after `trainer.test` or `trainer.validate` of a trained network, and when the run
    fails. It reads what `RunRecorder` has written, so it is listed after that.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: str | os.PathLike):
        self.run_dir = Path(run_dir)
        self._trained = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._trained = not trainer.fast_dev_run

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage in ("validate", "test"):
            self._write(trainer, pl_module, "test" if stage == "test" else "val")

    def on_exception(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._write(trainer, None, "val")

    def _write(self, trainer: L.Trainer, task: Any, split: str) -> None:
        if not self._trained or not trainer.is_global_zero:
            return
        from ..reporting.html import write_report

        title = run_title(trainer, trainer.lightning_module)
        write_report(self.run_dir, title, task, trainer.datamodule, split)
