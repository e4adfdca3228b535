"""A learning rate from a short training whose rate rises step by step until the loss does too.

Smith, Cyclical Learning Rates for Training Neural Networks, 2017 (arXiv 1506.01186), section 3.3.
"""

import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf

from src import charts
from src.build import build, complete, make_trainer
from src.callbacks import StepSeed
from src.errors import UserError
from src.run_folder import RunFolder, write_text
from src.training import quieten

OWN = ("min_lr", "max_lr", "num_steps", "optimizer.lr")  # keys that the suggested command leaves out
SMOOTHING = 0.9  # of the loss from step to step
DIVERGED = 3.0  # times the lowest loss
FALL = 0.05  # of the first loss: what must be gained at least
WINDOW = 5  # steps over which a fall is measured


def find_lr(cfg: DictConfig, typed: Sequence[str], folder: Path) -> float:
    """Train the composed run for a few steps at a rising rate; writes `lr_finder.csv` and `lr_finder.svg`, keeps no weights.

    Args:
        cfg: conf/find_lr.yaml with what was typed.
        typed: the command line's overrides.
        folder: for the two files.

    Returns:
        The suggestion for `optimizer.lr`.

    Raises:
        UserError: the loss does not fall in this range of rates.
    """
    if not (0 < cfg.min_lr < cfg.max_lr and cfg.num_steps >= 20):
        raise UserError(
            f"No rates can be tried from {cfg.min_lr} to {cfg.max_lr} in {cfg.num_steps} steps.",
            "Give 0 < min_lr < max_lr and num_steps=20 or more.",
        )
    quieten()
    complete(cfg)
    run = RunFolder(folder)
    rates, losses = ramp(cfg)
    smooth = smoothed(losses)
    run.write_csv("lr_finder.csv", ["step", "lr", "loss", "smoothed"], zip(range(len(rates)), rates, losses, smooth, strict=True))
    rate = suggest(rates, smooth, cfg)
    chart = charts.lr_curve(list(zip(rates, losses, strict=True)), list(zip(rates, smooth, strict=True)), rate)
    write_text(folder / "lr_finder.svg", charts.standalone(chart))
    run.release()
    kept = [override for override in typed if override.partition("=")[0] not in OWN]
    print(f"Suggested: {rate:.2g}, from {len(rates)} steps at {rates[0]:.2g} to {rates[-1]:.2g}. {folder / 'lr_finder.svg'}")
    print(shlex.join(["python", "train.py", *kept, f"optimizer.lr={rate:.2g}"]), flush=True)
    return rate


class Ramp(L.Callback):
    """Multiplies the rate of every step by the same factor and notes the loss; ends the training where it has diverged.

    Parameter groups keep the proportions that the optimizer gave them.

    Args:
        first, last: rates, for the parameter group with the largest one.
        steps: how many.
    """

    def __init__(self, first: float, last: float, steps: int):
        self.first, self.factor = first, (last / first) ** (1 / (steps - 1))
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._batches: list[float] = []  # losses of the batches of this step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        largest = max(group["lr"] for group in optimizer.param_groups)
        self.shares = [group["lr"] / largest for group in optimizer.param_groups]

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        rate = self.first * self.factor**trainer.global_step
        for group, share in zip(trainer.optimizers[0].param_groups, self.shares, strict=True):
            group["lr"] = rate * share
        self._step, self._rate = trainer.global_step, rate

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Under accumulation Lightning hands over the loss divided by the number of batches.
        self._batches.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step == self._step and math.isfinite(self._batches[-1]):
            return  # gradients are still being added up
        self.rates.append(self._rate)
        self.losses.append(sum(self._batches) / len(self._batches))
        self._batches.clear()
        smooth = smoothed(self.losses)
        if not smooth[-1] < DIVERGED * min(smooth):
            raise Diverged


class Diverged(Exception):
    """The end of a ramp."""


def ramp(cfg: DictConfig) -> tuple[list[float], list[float]]:
    """Rates and the losses of the steps that were taken with them, until they diverge."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, task = build(cfg)
    task.scheduler_factory = None  # the ramp is the schedule
    callback = Ramp(cfg.min_lr, cfg.max_lr, cfg.num_steps)
    settings = OmegaConf.create(OmegaConf.to_container(cfg.trainer, resolve=True))
    settings.update(devices=1, num_nodes=1, strategy="auto", profiler=None)
    settings.update(max_epochs=-1, max_steps=cfg.num_steps, max_time=None, limit_val_batches=0, num_sanity_val_steps=0)
    settings.update(log_every_n_steps=cfg.num_steps + 1, enable_checkpointing=False, enable_progress_bar=False)
    trainer = make_trainer(settings, callbacks=[StepSeed(cfg.seed), callback], logger=False)
    data.trainer = trainer
    with suppress(Diverged):
        trainer.fit(task, data)
    return callback.rates, callback.losses


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential mean of the losses so far, without a pull towards zero at the start."""
    mean, smooth = 0.0, []
    for i, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING ** (i + 1)))
    return smooth


def suggest(rates: Sequence[float], smooth: Sequence[float], cfg: DictConfig) -> float:
    """Where the smoothed loss falls fastest, before it is lowest.

    Raises:
        UserError: the loss does not fall.
    """
    lowest = min(range(len(smooth)), key=lambda i: smooth[i] if math.isfinite(smooth[i]) else math.inf)
    if lowest >= WINDOW and smooth[lowest] < (1 - FALL) * smooth[0]:
        steepest = min(range(WINDOW, lowest + 1), key=lambda i: smooth[i] - smooth[i - WINDOW])
        return rates[steepest - WINDOW // 2]
    diverged = len(rates) < cfg.num_steps or not smooth[-1] < smooth[0]
    raise UserError(
        f"No rate can be suggested: between {rates[0]:.2g} and {rates[-1]:.2g} the loss "
        + (f"went from {smooth[0]:.3g} to {smooth[-1]:.3g}." if diverged else f"only fell from {smooth[0]:.3g} to {smooth[lowest]:.3g}."),
        f"Start lower: min_lr={rates[0] / 1000:.2g}." if diverged else f"Go higher or slower: max_lr=10 num_steps={3 * cfg.num_steps}.",
    )
