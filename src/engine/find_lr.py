"""`find_lr=true`: a learning rate from a range test, confirmed by two short trainings.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3.
"""

import logging
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from ..config.instantiate import (
    instantiate_callbacks,
    instantiate_datamodule,
    instantiate_model,
    instantiate_task,
    instantiate_trainer,
)
from ..config.plain import plain_config
from ..config.prepare import prepare_config
from ..config.validate import validate
from ..errors import UserError
from ..reporting.plot_style import to_png
from ..reporting.sweep_plots import lr_curve
from ..runs import RunFolder
from ..runs.environment import command_line

log = logging.getLogger(__name__)
CALLBACKS = ("step_seed", "class_weights", "memory_format", "freeze_backbone")
OWN_KEYS = ("find_lr", "lr_finder", "optimizer.lr")  # not in the printed command
DIVERGED = 3.0  # times the lowest smoothed loss: the range test ends
MIN_FALL = 0.05  # of the first loss, by which the loss must fall
WINDOW = 5  # steps over which the slope is measured
CONFIRM_STEPS = 100  # of the short trainings
TRAINER = {  # one device, and no validation within the steps
    "max_epochs": -1,
    "max_time": None,
    "check_val_every_n_epoch": 1_000_000,
    "val_check_interval": None,
    "num_sanity_val_steps": 0,
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "profiler": None,
    "enable_progress_bar": False,
}


def find_lr(cfg: DictConfig, typed: Sequence[str], run_dir: Path) -> float:
    """Suggest `optimizer.lr`: raise the rate step by step, then compare it in short trainings.

    Writes `lr_finder.csv`, `lr_finder.png` and `results.json`, keeps no weights, and prints the
    command that was `typed` with the suggestion.

    Raises:
        UserError: the range is impossible, or the loss does not fall in it.
    """
    options = cfg.lr_finder
    in_order = 0 < options.min_lr < options.max_lr and options.num_steps >= 20
    if not in_order or OmegaConf.select(cfg, "optimizer.lr") is None:
        raise UserError(
            f"A range test from {options.min_lr} to {options.max_lr} in {options.num_steps} steps "
            "is not possible.",
            "Give 0 < lr_finder.min_lr < lr_finder.max_lr, lr_finder.num_steps=20 or more, and an "
            "optimizer with optimizer.lr.",
        )
    prepare_config(cfg)
    validate(cfg)
    run = RunFolder(run_dir)
    run.start(plain_config(cfg), command_line())
    try:
        rate = _suggest(cfg, run)
        short_trainings = _confirm(cfg, run.path, rate)
    except BaseException as error:
        run.record_failure(error)
        raise
    run.finish({"status": "completed", "suggestion": rate, **short_trainings})
    kept = [override for override in typed if not _is_own(override)]
    log.info("%s", shlex.join(["python", "train.py", *kept, f"optimizer.lr={rate:.2g}"]))
    log.info("%s", run.path)
    return rate


def _is_own(override: str) -> bool:
    key = override.lstrip("+").partition("=")[0]
    return any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS)


class LRRangeTest(L.Callback):
    """Multiplies the learning rate of every step by the same factor and keeps the losses.

    Parameter groups keep the ratios of their rates. The training ends when the loss diverges.

    Args:
        min_lr: rate of the first step, which the optimizer has been built with.
        max_lr: rate of the last step.
        num_steps: number of optimizer steps.
    """

    def __init__(self, min_lr: float, max_lr: float, num_steps: int):
        self.min_lr = min_lr
        self.factor = (max_lr / min_lr) ** (1 / (num_steps - 1))
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._batches: list[float] = []  # losses of the accumulated batches of this step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._first_rates = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        for group, rate in zip(groups, self._first_rates, strict=True):
            group["lr"] = rate * self.factor**trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        # Lightning has divided the loss by the number of accumulated batches.
        self._batches.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):  # the optimizer has not stepped yet
            return
        self.rates.append(self.min_lr * self.factor ** len(self.rates))
        self.losses.append(sum(self._batches) / len(self._batches))
        self._batches.clear()
        smoothed = smooth(self.losses)
        finite = math.isfinite(self.losses[-1])
        trainer.should_stop = not (finite and smoothed.iat[-1] < DIVERGED * smoothed.min())


def smooth(losses: Sequence[float]) -> pd.Series:
    """Return the exponential means of the losses, with bias correction."""
    return pd.Series(losses).ewm(alpha=0.1).mean()


def _suggest(cfg: DictConfig, run: RunFolder) -> float:
    """Run the range test, record it, and return the rate at which the loss falls fastest."""
    options = cfg.lr_finder
    test = LRRangeTest(options.min_lr, options.max_lr, options.num_steps)
    trainer, task, datamodule = _build(cfg, run.path, options.min_lr, options.num_steps, [test])
    trainer.fit(task, datamodule=datamodule)
    smoothed = smooth(test.losses)
    table = pd.DataFrame({"lr": test.rates, "loss": test.losses, "smoothed": smoothed})
    run.write_csv("lr_finder.csv", ["step", *table], table.itertuples())
    rate = _steepest(test.rates, smoothed, options.num_steps)
    points, curve = (
        list(zip(test.rates, values, strict=True)) for values in (test.losses, smoothed)
    )
    to_png(lr_curve(points, curve, rate), run.path / "lr_finder.png")
    log.info(
        "Suggestion: optimizer.lr=%.2g, from %d steps at %.2g to %.2g",
        rate, len(table), test.rates[0], test.rates[-1],
    )  # fmt: skip
    return rate


def _steepest(rates: Sequence[float], smoothed: pd.Series, num_steps: int) -> float:
    """Return the rate at which the smoothed loss falls fastest, before it is lowest."""
    first, lowest, last = smoothed.iat[0], smoothed.min(), smoothed.iat[-1]
    slopes = smoothed.diff(WINDOW)[: smoothed.argmin() + 1].dropna()
    if len(slopes) and lowest < (1 - MIN_FALL) * first:
        return rates[slopes.idxmin() - WINDOW // 2]
    remedy = f"Set lr_finder.max_lr=10 lr_finder.num_steps={3 * num_steps}."
    if len(rates) < num_steps or not last < first:  # it has diverged
        remedy = f"Set lr_finder.min_lr={rates[0] / 1000:.2g}."
    raise UserError(
        f"No learning rate can be suggested: between {rates[0]:.2g} and {rates[-1]:.2g} the loss "
        f"does not fall by {MIN_FALL:.0%}.",
        remedy,
    )


def _confirm(cfg: DictConfig, folder: Path, suggestion: float) -> dict[str, Any]:
    """Train briefly with the suggested and with the configured rate, and report both losses."""
    configured = cfg.optimizer.lr
    rates = {"suggested": suggestion, "configured": configured}
    losses = {name: _short_training(cfg, folder, lr) for name, lr in rates.items()}
    log.info(
        "Validation loss after %d steps: %.4f with the suggestion, %.4f with the configured %.2g",
        CONFIRM_STEPS, losses["suggested"], losses["configured"], configured,
    )  # fmt: skip
    if not losses["suggested"] < losses["configured"]:
        log.info("The suggestion is not better than optimizer.lr=%.2g.", configured)
    return {name: {"lr": lr, "val_loss": losses[name]} for name, lr in rates.items()}


def _short_training(cfg: DictConfig, folder: Path, lr: float) -> float:
    """Return the validation loss after a short training with a constant rate."""
    trainer, task, datamodule = _build(cfg, folder, lr, CONFIRM_STEPS)
    trainer.fit(task, datamodule=datamodule)
    trainer.validate(task, datamodule=datamodule, verbose=False)
    return float(trainer.callback_metrics["val/loss"])


def _build(
    cfg: DictConfig, folder: Path, lr: float, steps: int, extra: Sequence[L.Callback] = ()
) -> tuple[L.Trainer, L.LightningModule, L.LightningDataModule]:
    """Build a training of a few steps without schedule, loggers, validation and checkpoints."""
    settings = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    settings.resume = settings.scheduler = None
    settings.optimizer.lr = lr
    nodes = settings.callbacks or {}
    settings.callbacks = {name: nodes[name] for name in CALLBACKS if name in nodes}
    settings.trainer.update(TRAINER, max_steps=steps)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate_datamodule(settings)
    model = instantiate_model(settings, datamodule)
    task = instantiate_task(settings, model, datamodule)
    callbacks = [*instantiate_callbacks(settings, folder), *extra]
    return instantiate_trainer(settings, folder, callbacks), task, datamodule
