"""Where metrics go: the table of epochs that every run keeps, and TensorBoard."""

import copy
import csv
import logging
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class EpochTable(Logger, Callback):
    """`metrics.csv`: one row an epoch, rewritten whole and renamed, continued when a run is resumed; one line an epoch on the screen.

    It is a callback too, because a checkpoint has to hold what the table knows of an epoch that is under way.

    Args:
        folder: the run folder.
        max_epochs: for the line on the screen.
        resumed: go on with the table that lies there; otherwise it is another run's and is written anew.
    """

    FIRST = ("epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc")
    USUAL = ("val/loss", "val/acc", "val/acc_balanced", "val/acc_top5")  # what else is measured in validation is printed as well

    def __init__(self, folder: Path, max_epochs: int | None = None, resumed: bool = False):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.max_epochs = max_epochs
        self.rows: dict[int, dict[str, float]] = {}
        if resumed and self.path.exists():
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
            further = [name for name in row if name.startswith("val/") and name not in self.USUAL]
            figures = [f"{name.removeprefix('val/')} {row[name]:.4f}" for name in ["val/loss", "val/acc", *further]]
            parts.append(f"val {' '.join(figures)}{best}")
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
    """TensorBoard's event files, in the folder `tb` of a run (TensorBoard shows the path, so it is short).

    Train, val and test are runs of their own there and share their tags, so that TensorBoard draws one chart `loss` with a line for each.
    The final figures lie beside the settings in a fourth one, `results`, which the HParams tab shows.

    Args:
        save_dir: the run folder.
        log_graph: draw the network, once, when the training starts.
        options: anything else that TensorBoardLogger takes.
    """

    STAGES = ("train", "val", "test")

    def __init__(self, save_dir: str | Path, log_graph: bool = False, **options: Any):
        super().__init__(save_dir, name="tb", version="", log_graph=log_graph, default_hp_metric=False, **options)
        self._writers: dict[str, SummaryWriter] = {}

    @property
    def log_dir(self) -> str:
        return os.path.join(self.root_dir, "train")

    def writer(self, stage: str) -> "SummaryWriter":
        """Writes into the folder of `train` (Lightning's `experiment`), `val`, `test` or `results`."""
        if stage == "train":
            return self.experiment
        if stage not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[stage] = SummaryWriter(os.path.join(self.root_dir, stage), **self._kwargs)
        return self._writers[stage]

    @rank_zero_only
    def begin(self, step: int | None) -> None:
        """Clear away what an earlier run in the same folder, or an earlier part of this one, has logged and is about to be repeated.

        Args:
            step: from where a resumed run goes on; None begins anew.
        """
        self._kwargs["purge_step"] = step
        for folder in ("",) if step is None else ("test", "results"):  # these are written at the end of a run, as a whole
            shutil.rmtree(os.path.join(self.root_dir, folder), ignore_errors=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """`val/loss` is `loss` of the run val. What the task has logged itself, with the marks of an epoch, is left out at its end."""
        for name, value in metrics.items():
            if name == "epoch" or (name in ("train/loss", "train/acc", "lr") and "epoch" in metrics):
                continue
            stage, _, tag = name.rpartition("/")
            if stage in self.STAGES:
                self.writer(stage).add_scalar(f"metrics/{tag}", value, step)
            else:
                self.writer("train").add_scalar(name if stage else f"training/{name}", value, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[np.ndarray], step: int | None = None) -> None:
        """Pictures (H, W, 3), uint8; a key such as `val/answers` says where they belong, as in `log_metrics`."""
        stage, _, tag = key.partition("/")
        for image in images:
            self.writer(stage).add_image(f"pictures/{tag}", image, step, dataformats="HWC")

    @rank_zero_only
    def log_graph(self, model: Any, input_array: torch.Tensor | None = None) -> None:
        """Draw the network of a task, if `log_graph` was asked for. Lightning calls it whenever it starts something."""
        if not self._log_graph:
            return
        self._log_graph = False
        size = model.description["image_size"]
        network = copy.deepcopy(model.model).eval()  # add_graph would switch parts to training that are not to be trained
        images = torch.zeros(1, model.mean.shape[1], size, size, device=model.device, dtype=model.mean.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated, and warns of every branch that hangs on a shape
            try:
                self.experiment.add_graph(network, images)
            except Exception as error:  # not every network can be traced, and none needs to be
                log.warning("The network cannot be drawn: %s", str(error).strip().partition("\n")[0])

    @rank_zero_only
    def log_results(self, settings: dict[str, Any], figures: dict[str, float], step: int) -> None:
        """A row of the HParams tab.

        Without the summary that would name the columns for all runs, TensorBoard shows every setting that any run has, and as figures
        what lies in these folders alone.
        """
        from torch.utils.tensorboard.summary import hparams

        writer = self.writer("results")
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        for summary in hparams(settings, figures)[1:]:
            writer._get_file_writer().add_summary(summary)
        writer.close()

    def save(self) -> None:
        """Flush the events; the base class would add a hparams.yaml to a folder that has its config.yaml."""
        for writer in (self._experiment, *self._writers.values()):
            if writer is not None:
                writer.flush()

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """What was logged up to a checkpoint must last as long as it does."""
        self.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the files; whatever is logged later opens new ones."""
        for writer in (self._experiment, *self._writers.values()):
            if writer is not None:
                writer.close()
