"""Where metrics go: the table of epochs that every run keeps, and TensorBoard."""

import csv
import logging
import math
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


class EpochTable(Logger, Callback):
    """`metrics.csv`: one row an epoch, rewritten whole and renamed, continued when a run is resumed; one line an epoch on the screen.

    It is a callback too, because a checkpoint has to hold what the table knows of an epoch that is under way.

    Args:
        folder: the run folder.
        max_epochs: for the line on the screen.
    """

    FIRST = ("epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc")

    def __init__(self, folder: Path, max_epochs: int | None = None):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.max_epochs = max_epochs
        self.rows: dict[int, dict[str, float]] = {}
        if self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self.rows[int(row["epoch"])] = {name: _number(value) for name, value in row.items() if value != ""}

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the figures of an epoch's end; those inside an epoch (without `epoch`) are TensorBoard's."""
        if "epoch" not in metrics or any(name.startswith("test/") for name in metrics):
            return
        epoch = int(metrics["epoch"])
        row = self.rows.setdefault(epoch, {})
        figures = {name: _figure(value) for name, value in metrics.items() if name != "epoch"}
        if row.get("val/loss", math.inf) < figures.get("val/loss", math.inf):
            # Of several validations in an epoch the best one stands, as best.ckpt does.
            figures = {name: value for name, value in figures.items() if not name.startswith("val/")}
        row.update(figures)
        row.update(epoch=epoch, step=int(step or 0))
        if "train/loss" in metrics:  # validation comes first, so the row is complete
            self.write()
            self._print(row)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the row of this epoch: Lightning logs an epoch only after its checkpoint, so a run killed in between would lose it."""
        progress = trainer.fit_loop.epoch_progress.current
        row = dict(self.rows.get(trainer.current_epoch, {}))
        if progress.processed > progress.completed:  # the epoch is over
            figures = {name: _figure(value) for name, value in trainer.callback_metrics.items()}
            step = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] - 1
            row = figures | row | {"epoch": trainer.current_epoch, "step": step}
        checkpoint["epoch_row"] = row

    def go_on(self, epoch: int, row: dict[str, float]) -> None:
        """Drop the rows of epochs that a resumed run is going to repeat, and take the checkpoint's for the one it stands in."""
        self.rows = {number: old for number, old in self.rows.items() if number < epoch}
        if row:
            self.rows[epoch] = dict(row)

    def write(self) -> None:
        """The whole table, to a file beside it that then takes its place."""
        names = {name for row in self.rows.values() for name in row}
        columns = [name for name in self.FIRST if name in names] + sorted(names - set(self.FIRST))
        part = self.path.with_suffix(".csv.part")
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows[epoch] for epoch in sorted(self.rows))
        os.replace(part, self.path)

    def _print(self, row: dict[str, float]) -> None:
        losses = [r["val/loss"] for r in self.rows.values() if "val/loss" in r and not math.isnan(r["val/loss"])]
        parts = [f"epoch {row['epoch'] + 1:>3}" + (f"/{self.max_epochs}" if self.max_epochs else "")]
        parts.append(f"train loss {row['train/loss']:.4f} acc {row['train/acc']:.4f}")
        if "val/loss" in row:
            best = " *" if losses and row["val/loss"] <= min(losses) else "  "
            parts.append(f"val loss {row['val/loss']:.4f} acc {row['val/acc']:.4f}{best}")
        parts.append(f"lr {row['lr']:.3g}")
        if "seconds" in row:
            parts.append(f"{row['seconds']:.1f} s, {row['images_per_second']:,.0f} images/s")
        log.info("  ".join(parts))


def _figure(value: float) -> float:
    """Lightning keeps figures as float32: seven digits are what they hold."""
    return float(f"{float(value):.7g}")


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text else value


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into the run folder and without its placeholder metric.

    `train/loss` is drawn by the marks inside each epoch; the mean over the epoch, which would lie on top of them, stays in metrics.csv.

    Args:
        save_dir: the run folder.
        options: anything else that TensorBoardLogger takes.
    """

    def __init__(self, save_dir: str | os.PathLike, **options: Any):
        super().__init__(save_dir, name="", version="", default_hp_metric=False, **options)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "epoch" in metrics:
            metrics = {name: value for name, value in metrics.items() if name not in ("train/loss", "epoch")}
        super().log_metrics(metrics, step)

    def save(self) -> None:
        """Flush the events; the base class would add a hparams.yaml to a folder that has its config.yaml."""
        if self._experiment is not None:
            self._experiment.flush()
