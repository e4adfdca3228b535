"""The record of a run: configuration, environment, metrics per epoch, results and tables."""

import logging
import math
import os
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..reporting.analysis import log_classes, write_tables
from ..runs import RunFolder
from ..runs.checkpoint import to_plain
from ..runs.environment import command_line
from ..runs.metrics_table import MetricsTable
from ..runs.resume_settings import all_changes
from .base import EpochCallback, epoch_metrics
from .run_description import (
    check_same_data,
    compared_settings,
    describe_data,
    describe_run,
    run_title,
)
from .run_results import (
    check_best,
    closing_line,
    count_parameters,
    evaluated_checkpoint,
    final_metrics,
    monitored,
    split_metrics,
    summarize_run,
)

log = logging.getLogger(__name__)


class RunRecorder(EpochCallback):
    """Writes the files of a run folder, for `train.py` and for trainers composed by hand.

    `config.yaml`, `run.json` and `metrics.csv` during the training; `results.json` and the tables
    of predictions after `trainer.test`, or after `trainer.validate` where nothing is tested. A
    trainer that is composed by hand without callbacks for checkpoints saves `best.ckpt` and
    `last.ckpt` too.

    Args:
        run_dir: the run folder.
        config: settings of the run in plain types; None describes the objects of the run.
    """

    def __init__(self, run_dir: str | os.PathLike, config: dict[str, Any] | None = None):
        self.folder = RunFolder(run_dir)
        self.config = config
        self.table = MetricsTable()
        self.best: dict[str, Any] | None = None  # epoch, score, metrics of the best validation
        self.results: dict[str, Any] | None = None
        self.changes: list[dict[str, Any]] = []  # of settings, by resumed runs
        self._writes = False  # a training has started, and this is the process that writes
        self._data_before: dict[str, Any] = {}  # of a resumed run
        self._epoch = 0
        self._epoch_ended = False

    # Start

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if self._writes:
            self.folder.lock()
            return
        if stage != "fit":
            return
        if trainer.fast_dev_run:
            log.info("trainer.fast_dev_run=%s: no files are written", trainer.fast_dev_run)
            return
        if self.config is None:  # a trainer composed by hand
            if "val/loss" in getattr(pl_module, "metric_names", ()):
                _replace_default_checkpoint(trainer, pl_module, self.folder)
            self.config = describe_run(trainer, pl_module)
        if trainer.is_global_zero:
            self.folder.start(self.config, command_line())
            self._writes = True

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        data = describe_data(trainer)
        check_same_data(self._data_before, data)
        if isinstance(getattr(pl_module, "description", None), dict):
            pl_module.description["data"] = data
            for name in ("image_size", "resize"):  # of a task that was composed by hand
                if hasattr(trainer.datamodule, name):
                    pl_module.description.setdefault(name, getattr(trainer.datamodule, name))
        parameters = count_parameters(pl_module)
        if trainer.is_global_zero:
            sizes = ", ".join(f"{n:,} {split}" for split, n in data.get("sizes", {}).items())
            images = f"; {sizes} images" if sizes else ""
            title = run_title(trainer, pl_module)
            log.info("%s: %s parameters%s", title, f"{parameters:,}", images)
        for logger in trainer.loggers:
            logger.log_hyperparams(compared_settings(self.config or {}))
        if self._writes:
            self.folder.note(
                data=data,
                num_parameters=parameters,
                precision=str(trainer.precision),
                processes=trainer.world_size,
            )

    # Epochs. The module logs the metrics of an epoch after this hook and before checkpoints are
    # saved, so they are recorded when a checkpoint is saved or the next epoch starts.

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        # Lightning leaves out on_train_epoch_start for an epoch that is resumed in its middle.
        self._epoch, self._epoch_ended = trainer.current_epoch, False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._complete_row(trainer, pl_module)
        self._epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._epoch_ended = True

    def _complete_row(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Complete the row of an epoch that has ended, once."""
        if not self._epoch_ended:
            return
        self._epoch_ended = False
        metrics = epoch_metrics(trainer)
        others = {k: v for k, v in metrics.items() if not k.startswith(("val", "test"))}
        self.table.update(self._epoch, others | {"step": trainer.global_step - 1})
        self._update_best(trainer, pl_module, "train", self._epoch)
        if self._writes:
            self.table.write(self.folder.path / "metrics.csv")

    on_train_end = _complete_row

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            self._record_results(trainer, pl_module, "val")
            return
        if trainer.sanity_checking:
            return
        values = {k: v for k, v in epoch_metrics(trainer).items() if k.startswith("val")}
        before = self.table.row(trainer.current_epoch).get("val/loss", math.inf)
        if not before < values.get("val/loss", math.inf):  # the best validation of an epoch is kept
            self.table.update(trainer.current_epoch, values)
        self._update_best(trainer, pl_module, "val", trainer.current_epoch)

    def _update_best(self, trainer: L.Trainer, pl_module: Any, stage: str, epoch: int) -> None:
        """Keep the metrics of the epoch that the best checkpoint is of."""
        monitor, mode = monitored(trainer)
        if not monitor.startswith(stage) or monitor not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[monitor])
        score = value if mode == "min" else -value
        if self.best is None or score < self.best["score"]:
            metrics = split_metrics(trainer, pl_module, "val")
            self.best = {"epoch": epoch, "score": score, "metrics": metrics}

    # Checkpoints hold the record, so that a resumed run continues it

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict) -> None:
        self._complete_row(trainer, pl_module)
        record = {"rows": self.table.state(), "best": self.best, "changes": self.changes}
        if "description" not in checkpoint:  # of a plain LightningModule: for a resumed run
            record["config"] = to_plain(self.config)
        checkpoint["run_record"] = record

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict) -> None:
        if trainer.state.fn != "fit":
            return
        self._data_before = (checkpoint.get("description") or {}).get("data") or {}
        if "run_record" in checkpoint:
            self.table.load_state(checkpoint["run_record"]["rows"])
            self.best = checkpoint["run_record"]["best"]
            self.changes = all_changes(checkpoint, to_plain(self.config))

    # Results

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        check_best(trainer, self.table.rows.values())
        self.results = summarize_run(trainer, pl_module, self.table.last(), self.best)
        self.results["resume_changes"] = self.changes
        if not self._writes:
            return
        choices = [getattr(callback, "automatic", {}) for callback in trainer.callbacks]
        self.folder.note(automatic={k: v for chosen in choices for k, v in chosen.items()})
        if not self.folder.has_results():  # those of an earlier part stay until the test
            self.folder.write_results(self.results)
        if not any(is_overridden(step, pl_module) for step in ("validation_step", "test_step")):
            self._record_results(trainer, pl_module, "val")  # nothing will be evaluated

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._record_results(trainer, pl_module, "test")

    def _record_results(self, trainer: L.Trainer, pl_module: Any, split: str) -> None:
        if self.results is None:  # nothing was trained
            return
        self.results["status"] = "completed"
        self.results["checkpoint"] = evaluated_checkpoint(trainer, self.folder.path)
        self.results[split] = split_metrics(trainer, pl_module, split) or None
        if not self._writes:
            return
        evaluation = getattr(pl_module, "evaluations", {}).get(split)
        if evaluation is not None:
            names = partial(_image_names, trainer.datamodule, split)
            write_tables(self.folder, split, pl_module.classes, evaluation, names)
            log_classes(split, pl_module.classes, evaluation)
        self.folder.finish(self.results)
        for logger in trainer.loggers:
            if hasattr(logger, "log_results"):
                settings = compared_settings(self.config or {})
                logger.log_results(settings, final_metrics(self.results), trainer.global_step)
        log.info("%s", closing_line(self.results, self.folder.path))

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if stage == "validate" and trainer.limit_val_batches == 0:  # nothing is evaluated
            self._record_results(trainer, pl_module, "val")
        self.folder.release()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        if self._writes:
            self.record_failure(exception)
        self.folder.release()  # also where nothing could be written

    def record_failure(self, error: BaseException) -> None:
        """Record that the run failed or was interrupted."""
        self.folder.record_failure(error, seed=(self.config or {}).get("seed"))


def _replace_default_checkpoint(trainer: L.Trainer, pl_module: Any, folder: RunFolder) -> None:
    """Save `best.ckpt` and `last.ckpt` in place of what Lightning saves without a callback."""
    for i, callback in enumerate(trainer.callbacks):
        if type(callback) is ModelCheckpoint and callback.monitor is None:
            trainer.callbacks[i] = ModelCheckpoint(
                folder.checkpoints,
                "best",
                monitor="val/loss",
                save_last=True,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
            trainer.callbacks[i].setup(trainer, pl_module, "fit")


def _image_names(datamodule: Any, split: str, positions: torch.Tensor) -> list[str]:
    if hasattr(datamodule, "names"):
        return datamodule.names(split, positions)
    return [str(position) for position in positions.tolist()]
