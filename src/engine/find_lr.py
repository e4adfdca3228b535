"""`find_lr=true`: learning rates from a range test, compared with the configured one.

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
from .failures import recorded_failures

log = logging.getLogger(__name__)
CALLBACKS = ("step_seed", "class_weights", "memory_format", "freeze_backbone")
OWN_KEYS = ("find_lr", "lr_finder", "optimizer.lr")  # not in the printed command
DIVERGED = 3.0  # times the lowest smoothed loss: the range test ends
FRACTIONS = (1 / 3, 1 / 10)  # of the rate at the lowest loss: the candidates
SHORT_STEPS = 200  # of a short training
CLEARLY = 0.9  # times the validation loss of the configured rate, with both seeds
TRAINER = {  # one device, and no validation within the steps
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
    """Look for an `optimizer.lr` that trains clearly better than the configured one.

    A range test gives candidates. Short trainings compare them with the configured rate, which
    stays unless one is clearly better with two seeds. Writes `lr_finder.csv`, `lr_finder.png` and
    `results.json`, keeps no weights, and prints the command that was `typed` with the rate.

    Returns:
        The rate, the configured one where it stays.

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
    with recorded_failures(cfg, run_dir):
        validate(cfg)
        run = RunFolder(run_dir)
        run.start(plain_config(cfg), command_line())
        results = _search(cfg, run)
        run.finish({"status": "completed", **results})
    rate = results["lr"]
    kept = [override for override in typed if not _is_own(override)]
    log.info("%s", shlex.join(["python", "train.py", *kept, f"optimizer.lr={rate:g}"]))
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


def _search(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Run the range test and the short trainings, and return what `results.json` records."""
    options = cfg.lr_finder
    test = LRRangeTest(options.min_lr, options.max_lr, options.num_steps)
    settings = _settings(cfg, options.min_lr, cfg.seed)
    settings.scheduler = None
    settings.trainer.update(max_epochs=-1, max_steps=options.num_steps)
    _fit(settings, run.path, test)
    smoothed = smooth(test.losses)
    table = pd.DataFrame({"lr": test.rates, "loss": test.losses, "smoothed": smoothed})
    run.write_csv("lr_finder.csv", ["step", *table], table.itertuples())
    candidates = _candidates(test.rates, smoothed)
    log.info(
        "The loss is lowest at %.2g (%d steps). Next: short trainings of up to %d steps, one with "
        "each of %d rates, and two more if one of them is better.",
        test.rates[smoothed.argmin()], len(table), SHORT_STEPS, 1 + len(candidates),
    )  # fmt: skip
    rate, losses = _compare(cfg, run.path, candidates)
    points, curve = (list(zip(test.rates, y, strict=True)) for y in (test.losses, smoothed))
    to_png(lr_curve(points, curve, rate), run.path / "lr_finder.png")
    trials = [{"lr": lr, "val_loss": values} for lr, values in losses.items()]
    return {"lr": rate, "configured": cfg.optimizer.lr, "short_trainings": trials}


def _candidates(rates: Sequence[float], smoothed: pd.Series) -> list[float]:
    """Return fractions of the rate at which the smoothed loss is lowest, to two digits."""
    if not smoothed.min() < smoothed.iat[0]:
        raise UserError(
            f"The loss does not fall at rates between {rates[0]:.2g} and {rates[-1]:.2g}.",
            f"Set lr_finder.min_lr={rates[0] / 1000:.2g}.",
        )
    return [float(f"{part * rates[smoothed.argmin()]:.2g}") for part in FRACTIONS]


def _compare(
    cfg: DictConfig, folder: Path, candidates: Sequence[float]
) -> tuple[float, dict[float, list[float]]]:
    """Train briefly with every rate, and with a second seed if one is clearly better.

    Returns:
        The rate to use, and for each rate its validation losses, one a seed.
    """
    configured = cfg.optimizer.lr
    rates = [configured, *candidates]
    losses = {lr: [_short_training(cfg, folder, lr, cfg.seed)] for lr in rates}
    best = min(losses, key=lambda lr: losses[lr][0])
    is_better = losses[best][0] < CLEARLY * losses[configured][0]
    if is_better:
        for lr in (configured, best):
            losses[lr].append(_short_training(cfg, folder, lr, cfg.seed + 1))
        is_better = losses[best][1] < CLEARLY * losses[configured][1]
    for lr, values in losses.items():
        log.info("optimizer.lr=%g: validation loss %s", lr, ", ".join(f"{v:.4f}" for v in values))
    if not is_better:
        log.info("optimizer.lr=%g stays: no other rate is clearly better.", configured)
        return configured, losses
    log.info("optimizer.lr=%g is clearly better than the configured %g.", best, configured)
    return best, losses


def _short_training(cfg: DictConfig, folder: Path, lr: float, seed: int) -> float:
    """Return the validation loss after the run with fewer batches in each epoch.

    A schedule keeps its shape; one that follows a metric is left out.
    """
    settings = _settings(cfg, lr, seed)
    options = settings.trainer
    epochs, limit, steps = options.max_epochs, options.limit_train_batches, options.max_steps
    if epochs and epochs > 0:
        batches = max(1, SHORT_STEPS * options.accumulate_grad_batches // epochs)
        options.limit_train_batches = min(batches, limit) if isinstance(limit, int) else batches
    options.max_steps = min(SHORT_STEPS, steps) if steps > 0 else SHORT_STEPS
    if "monitor" in (settings.scheduler or {}):
        settings.scheduler = None
    trainer, task, datamodule = _fit(settings, folder)
    trainer.validate(task, datamodule=datamodule, verbose=False)
    loss = float(trainer.callback_metrics["val/loss"])
    return loss if math.isfinite(loss) else math.inf


def _settings(cfg: DictConfig, lr: float, seed: int) -> DictConfig:
    """Return settings without loggers, checkpoints, and validation while training."""
    settings = cfg.copy()
    settings.seed = seed  # callbacks refer to it
    settings = OmegaConf.create(OmegaConf.to_container(settings, resolve=True))
    settings.resume = None
    settings.optimizer.lr = lr
    nodes = settings.callbacks or {}
    settings.callbacks = {name: nodes[name] for name in CALLBACKS if name in nodes}
    settings.trainer.update(TRAINER)
    return settings


def _fit(
    settings: DictConfig, folder: Path, *extra: L.Callback
) -> tuple[L.Trainer, L.LightningModule, L.LightningDataModule]:
    """Train a new network."""
    L.seed_everything(settings.seed, workers=True, verbose=False)
    datamodule = instantiate_datamodule(settings)
    model = instantiate_model(settings, datamodule)
    task = instantiate_task(settings, model, datamodule)
    callbacks = [*instantiate_callbacks(settings, folder), *extra]
    trainer = instantiate_trainer(settings, folder, callbacks)
    trainer.fit(task, datamodule=datamodule)
    return trainer, task, datamodule
