"""The content of `results.json`, and the lines that end a run on the console."""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from ..reporting.analysis import class_metrics, summary_metrics
from .base import epoch_metrics
from .run_description import global_seed

log = logging.getLogger(__name__)


def monitored(trainer: L.Trainer) -> tuple[str, str]:
    """Metric and mode (`min` or `max`) by which the best checkpoint is chosen."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            return callback.monitor, callback.mode
    return "val/loss", "min"


def split_metrics(trainer: L.Trainer, pl_module: Any, split: str) -> dict[str, Any]:
    """Metrics of the last pass over `val` or `test`; accuracy per class for `test`."""
    evaluation = getattr(pl_module, "evaluations", {}).get(split)
    if evaluation is None:  # a plain LightningModule: what it has logged
        return {
            name[len(split) + 1 :]: value
            for name, value in epoch_metrics(trainer).items()
            if name.startswith((f"{split}/", f"{split}_"))
        }
    metrics: dict[str, Any] = summary_metrics(evaluation)
    if split == "test":
        metrics |= class_metrics(pl_module.classes, evaluation.confusion)
    return metrics


def summarize_run(
    trainer: L.Trainer,
    pl_module: Any,
    last_epoch: Mapping[str, float],
    best: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of `results.json` after the training, which has evaluated nothing yet."""
    timers = (c for c in trainer.callbacks if getattr(c, "trained_seconds", 0) > 0)
    timer: Any = next(timers, None)  # None also where no epoch was trained
    speed = timer.images / max(timer.trained_seconds, 1e-9) if timer else None
    extra = getattr(getattr(pl_module, "val_metrics", None), "extra", {})
    measured = [getattr(callback, "measured", {}) for callback in trainer.callbacks]
    return {
        **{name: value for part in measured for name, value in part.items()},
        "status": "trained",
        "train": {
            k: last_epoch[f"train/{k}"] for k in ("loss", "acc") if f"train/{k}" in last_epoch
        },
        "val": best["metrics"] if best else None,
        "test": None,
        "best_epoch": best["epoch"] if best else None,
        "monitor": monitored(trainer)[0],
        "metrics": list(extra),
        "epochs": trainer.fit_loop.epoch_progress.current.ready,  # begun
        "stopped_by": stopped_by(trainer),
        "seed": global_seed(),
        "train_seconds": round(timer.train_seconds, 3) if timer else None,
        "images_per_second": round(speed, 1) if speed is not None else None,
        "num_parameters": count_parameters(pl_module),
        "checkpoint": None,
    }


def check_best(trainer: L.Trainer, rows: Iterable[Mapping[str, float]]) -> None:
    """Warn where the loss of the best checkpoint is not the lowest in the table of epochs."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "val/loss":
            kept = callback.best_model_score
            losses = [row["val/loss"] for row in rows if row.get("val/loss", math.inf) < math.inf]
            if kept is not None and losses and not math.isclose(kept, min(losses), rel_tol=1e-5):
                file = callback.best_model_path
                log.warning(
                    "%s has val/loss %.6g, but the lowest in metrics.csv is %.6g.",
                    file,
                    kept,
                    min(losses),
                )


def stopped_by(trainer: L.Trainer) -> str | None:
    """What ended the training before `max_epochs`: a key of the trainer, or a callback's class."""
    for callback in trainer.callbacks:
        if isinstance(callback, Timer):
            left = callback.time_remaining()
            if left is not None and left <= 0:
                return "max_time"
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            return type(callback).__name__
    return "max_steps" if trainer.global_step >= trainer.max_steps >= 0 else None


def count_parameters(pl_module: Any) -> int:
    """Parameters of the network; of the whole module where it has no `model`."""
    network = getattr(pl_module, "model", pl_module)
    return sum(parameter.numel() for parameter in network.parameters())


def evaluated_checkpoint(trainer: L.Trainer, run_dir: Path) -> str | None:
    """The file, relative to the run folder it lies in; None for weights in memory."""
    path = trainer.ckpt_path
    if path is None:
        return None
    inside = Path(path).absolute().is_relative_to(run_dir)
    return os.path.relpath(path, run_dir) if inside else str(path)


def final_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Loss, accuracy and extra metrics of the best checkpoint, by split: `val/loss`, ..."""
    names = ["loss", "acc", *results["metrics"]]
    return {
        f"{split}/{name}": results[split][name]
        for split in ("val", "test")
        for name in names
        if name in (results[split] or {})
    }


def closing_line(results: Mapping[str, Any], run_dir: Path) -> str:
    """The result of a run in one line, and its folder in another."""
    split = next((name for name in ("test", "val") if results[name]), "train")
    line = ", ".join(_shown_metrics(split, results[split] or {}, results["metrics"]))
    if "cross_validation" in results:
        line = ", ".join(filter(None, [line, cross_validated(results["cross_validation"])]))
    else:
        line = f"{line or 'no metrics'} ({_chosen_epoch(results)})"
    if results["train_seconds"] is not None:
        line += f" after {results['train_seconds']:.0f} s of training"
    if results["stopped_by"] is not None:
        line += f", stopped by {results['stopped_by']}"
    return f"{line}\n{run_dir}"


def _shown_metrics(split: str, metrics: Mapping[str, Any], extra: Sequence[str]) -> list[str]:
    """The accuracy with its interval, the extra metrics and the loss in words."""
    shown = {"acc": "accuracy", **{name: name for name in extra}, "loss": "loss"}
    parts = [f"{split} {word} {metrics[k]:.4f}" for k, word in shown.items() if k in metrics]
    if "acc_low" in metrics:
        parts[0] += f" (95 %: {metrics['acc_low']:.4f} to {metrics['acc_high']:.4f})"
    # Those of a plain LightningModule have other names.
    return parts or [f"{split} {k} {v:.4f}" for k, v in list(metrics.items())[:4]]


def _chosen_epoch(results: Mapping[str, Any]) -> str:
    """Which epoch the weights are of."""
    if results["best_epoch"] is None:
        return "nothing was validated: the weights are the last ones"
    chosen = (results["val"] or {}).get(results["monitor"].removeprefix("val/"))
    value = "" if chosen is None else f" {chosen:.4f}"
    return (
        f"best of {results['epochs']} epochs: epoch {results['best_epoch'] + 1}, "
        f"chosen by {results['monitor']}{value}"
    )


def cross_validated(measured: Mapping[str, Any]) -> str:
    """The accuracy of out-of-fold predictions in words."""
    return (
        "cross-validated accuracy {acc:.4f} (95 %: {acc_low:.4f} to {acc_high:.4f}, n = {n}, "
        "{folds} folds)".format_map(measured)
    )
