"""One training run: five objects (data, network, task, callbacks with loggers, trainer), two calls.

Everything else is a callback, see conf/callbacks/default.yaml.
"""

import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from ..config.instantiate import (
    instantiate_callbacks,
    instantiate_datamodule,
    instantiate_loggers,
    instantiate_model,
    instantiate_task,
    instantiate_trainer,
)
from ..config.prepare import prepare_config
from ..config.validate import validate
from ..runs.reading import number
from ..runs.run_folder import last_checkpoint
from .failures import recorded_failures
from .resume import check_run_dir

log = logging.getLogger(__name__)


def train(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Train a network, test its best checkpoint once, and leave a complete run folder.

    Args:
        cfg: the composed configuration, see conf/config.yaml.
        run_dir: the run folder; a resumed run has its own.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: a mistake in the settings or the data; `results.json` says so, unless the folder
            holds another run.
    """
    prepare_config(cfg)
    check_run_dir(cfg, run_dir)
    with recorded_failures(cfg, run_dir):
        validate(cfg)
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule = instantiate_datamodule(cfg)
        model = instantiate_model(cfg, datamodule)
        task = instantiate_task(cfg, model, datamodule)
        callbacks = instantiate_callbacks(cfg, run_dir)
        loggers = instantiate_loggers(cfg, run_dir)
        trainer = instantiate_trainer(cfg, run_dir, callbacks, loggers)

        trainer.fit(task, datamodule=datamodule, ckpt_path=cfg.resume, weights_only=True)
        checkpoint = best_checkpoint(trainer) or last_checkpoint(run_dir)
        evaluate_best(trainer, task, datamodule, checkpoint, test=cfg.test)
    return recorded_results(trainer)


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The checkpoint with the best value of a monitored metric; None where none was saved."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback.best_model_path or None
    return None


def evaluate_best(
    trainer: L.Trainer,
    task: L.LightningModule,
    datamodule: L.LightningDataModule,
    checkpoint: str | Path | None,
    test: bool,
) -> None:
    """Test a checkpoint once; validate it where there is nothing to test.

    Args:
        checkpoint: None evaluates the weights in memory.
        test: False leaves the test split alone.
    """
    has_test = getattr(datamodule, "has_test", True) and trainer.limit_test_batches != 0
    if test and has_test and _can_evaluate(task, datamodule, "test"):
        evaluate = trainer.test
    elif _can_evaluate(task, datamodule, "validation"):
        evaluate = trainer.validate
    else:
        return
    evaluate(task, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)


def _can_evaluate(task: L.LightningModule, datamodule: L.LightningDataModule, stage: str) -> bool:
    """Whether a module and its data have what `trainer.test` or `trainer.validate` needs."""
    loader = {"test": "test_dataloader", "validation": "val_dataloader"}[stage]
    return is_overridden(f"{stage}_step", task) and is_overridden(loader, datamodule)


def recorded_results(trainer: L.Trainer) -> dict[str, Any]:
    """The results of a run, also where no callback has recorded them."""
    for callback in trainer.callbacks:
        if isinstance(getattr(callback, "results", None), dict):
            return callback.results
    log.warning("No callback has recorded this run: it leaves no results.json.")
    evaluation = getattr(trainer.lightning_module, "evaluations", {}).get("val")
    loss = evaluation.metrics["loss"] if evaluation else math.nan
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "val/loss":
            score = callback.best_model_score
            loss = loss if score is None else float(score)
    return {"status": "completed", "val": {"loss": loss}}


def check_finite(results: Mapping[str, Any], *splits: str) -> None:
    """End the program with exit code 1 where the loss of an evaluation is not finite."""
    for split in splits:
        loss = (results.get(split) or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            log.error(
                "%s/loss is %s: the network gives no usable outputs on these data.", split, loss
            )
            sys.exit(1)


def objective(results: Mapping[str, Any]) -> float:
    """What sweeps and searches minimize: the validation loss of the best checkpoint."""
    loss = number(results, "val", "loss")
    return loss if math.isfinite(loss) else math.inf
