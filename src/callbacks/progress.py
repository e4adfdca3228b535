"""Progress on the console: a live line during an epoch, and one line per finished epoch."""

import logging
import math
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.data import extract_batch_size

from ..reporting.text import format_duration
from .base import EpochCallback, epoch_metrics

log = logging.getLogger(__name__)

# Other metrics of the validation are extra ones, which the line of an epoch shows as well.
USUAL = ("val/loss", "val/acc", "val/acc_balanced", "val/acc_top5")


class Progress(ProgressBar, EpochCallback):
    """Rewrites one line on a terminal while an epoch runs, and prints a line when it has ended.

    Args:
        refresh_seconds: time between two refreshes of the live line.
        line_seconds: time between two lines of an epoch where there is no terminal.
    """

    def __init__(self, refresh_seconds: float = 0.5, line_seconds: float = 60.0):
        super().__init__()
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self.enabled = True
        self._start = self._last_refresh = 0.0
        self._batches = 0  # since the start of the training in this process
        self._shown_batches = 0  # at the last refresh
        self._ended_epoch: int | None = None  # an epoch whose line is not printed yet
        self._validation: dict[str, float] = {}  # best one of the current epoch

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    @property
    def is_enabled(self) -> bool:
        """What `LightningModule.print` looks at."""
        return self.enabled

    def print(self, *args: Any, **kwargs: Any) -> None:
        self._clear()
        super().print(*args, **kwargs)

    # The live line

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = self._last_refresh = time.monotonic()
        self._batches = self._shown_batches = 0
        self.on_train_batch_end = self._count_batch if self.enabled else None

    def _count_batch(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._batches += 1
        now = time.monotonic()
        if now >= self._last_refresh + (
            self.refresh_seconds if self._is_live else self.line_seconds
        ):
            images = (self._batches - self._shown_batches) * extract_batch_size(batch)
            line = self._live_line(trainer, pl_module, index + 1, images, now)
            if self._is_live:
                self._draw(line)
            else:
                self._print_line(line)
            self._last_refresh, self._shown_batches = now, self._batches

    def _live_line(
        self, trainer: L.Trainer, pl_module: Any, done: int, images: int, now: float
    ) -> str:
        speed = images * trainer.world_size / max(now - self._last_refresh, 1e-9)
        total = trainer.num_training_batches
        parts = [_epoch_name(trainer, trainer.current_epoch), f"{done}/{total}"]
        if hasattr(pl_module, "running"):
            parts += [f"{k} {value:.4f}" for k, value in pl_module.running.compute().items()]
        parts.append(f"{speed:,.0f} images/s")
        epochs = trainer.max_epochs or -1
        remaining = (epochs - trainer.current_epoch) * total - done
        if epochs > 0 and math.isfinite(remaining):
            seconds = remaining * (now - self._start) / self._batches  # validation included
            parts.append(f"{format_duration(seconds)} left")
        return "  ".join(parts)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw("validating ...")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw("testing ...")

    def _clear(self, *args: Any, **kwargs: Any) -> None:
        self._draw("")

    on_test_end = on_exception = _clear

    @property
    def _is_live(self) -> bool:
        return self.enabled and sys.stderr.isatty()

    def _draw(self, text: str) -> None:
        if self._is_live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
            sys.stderr.flush()

    # The line of an epoch. The module logs its training metrics after this hook, so the line is
    # printed at the start of the next epoch.

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw("")
        self._last_refresh, self._shown_batches = time.monotonic(), self._batches
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = {k: v for k, v in epoch_metrics(trainer).items() if k.startswith("val")}
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # inside an epoch
            name = _epoch_name(trainer, trainer.current_epoch)
            self._print_line(format_epoch(f"{name}  step {trainer.global_step}", metrics))
        loss = metrics.get("val/loss", math.inf)
        if not self._validation or loss < self._validation.get("val/loss", math.inf):
            self._validation = metrics

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended_epoch = trainer.current_epoch

    def _print_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._ended_epoch is None:
            return
        name = _epoch_name(trainer, self._ended_epoch)
        metrics = {k: v for k, v in epoch_metrics(trainer).items() if not k.startswith("val")}
        is_best = _is_best(trainer, self._validation)
        chosen = trainer.progress_bar_metrics  # logged with prog_bar=True
        line = format_epoch(name, metrics | self._validation, is_best, chosen)
        self._ended_epoch, self._validation = None, {}
        self._print_line(line)

    def _print_line(self, line: str) -> None:
        self._draw("")
        if self.enabled and log.hasHandlers():
            log.info("%s", line)
        elif self.enabled:  # in a notebook, where nobody has set up logging
            print(line, flush=True)

    on_train_epoch_start = on_train_end = _print_epoch


def _is_best(trainer: L.Trainer, metrics: Mapping[str, float]) -> bool:
    """Whether the best checkpoint is of the validation with these metrics."""
    for callback in trainer.checkpoint_callbacks:
        score = getattr(callback, "best_model_score", None)
        if score is not None:
            value = metrics.get(callback.monitor, math.nan)
            return f"{float(score):.7g}" == f"{value:.7g}"
    return False


def format_epoch(
    name: str, metrics: Mapping[str, float], is_best: bool = False, chosen: Iterable[str] = ()
) -> str:
    """The line of an epoch; what has no value is left out.

    Args:
        metrics: by name; `train_loss` and `val_loss` are what plain modules call them.
        chosen: names of metrics to show in addition to loss, accuracy and those of `val`.
    """
    known = {_with_slash(name): value for name, value in metrics.items() if not math.isnan(value)}
    extra = [name for name in known if name.startswith("val/") and name not in USUAL]
    added = [n for n in map(_with_slash, chosen) if n in known and not n.startswith("val/")]
    parts = [name]
    for split, names in (("train", added), ("val", extra)):
        ordered = dict.fromkeys([f"{split}/loss", f"{split}/acc", *names])  # each once
        shown = [n for n in ordered if n in known]
        values = [f"{n.removeprefix(f'{split}/')} {known[n]:.4f}" for n in shown]
        if values:
            mark = "" if split == "train" else " *" if is_best else "  "
            parts.append(f"{split} {' '.join(values)}{mark}")
    if "lr" in known:
        parts.append(f"lr {known['lr']:.3g}")
    if "seconds" in known:
        parts.append(f"{known['seconds']:.1f} s, {known['images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def _with_slash(name: str) -> str:
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in ("train", "val") and rest else name


def _epoch_name(trainer: L.Trainer, epoch: int) -> str:
    total = trainer.max_epochs or -1
    return f"epoch {epoch + 1:>3}" + (f"/{total}" if total > 0 else "")
