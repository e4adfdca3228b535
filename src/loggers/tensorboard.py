"""TensorBoard: curves, images and settings of a run."""

import copy
import logging
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

STAGES = ("train", "val", "test")
LOGGED_IN_STEPS = ("train/loss", "train/acc", "lr")  # the task logs them by itself, see log_metrics


class TensorBoard(Logger):
    """TensorBoard's event files, in the folder `tb` of a run.

    `train`, `val` and `test` are runs of their own in TensorBoard and share their tags, so that it
    draws one chart `loss` with a curve for each. The final metrics are in a fourth one, `results`,
    with the settings, which the HParams tab shows. Lightning's TensorBoardLogger has one writer.

    Args:
        save_dir: the run folder.
        log_graph: draw the network when the training starts.
        options: arguments of torch's SummaryWriter, such as `flush_secs`.
    """

    name, version = "tb", ""

    def __init__(self, save_dir: str | Path, log_graph: bool = False, **options: Any):
        super().__init__()
        self.root = Path(save_dir) / "tb"  # short, since TensorBoard shows the path
        self.options = options
        self._draw_graph = log_graph
        self._started = False
        self._writers: dict[str, SummaryWriter] = {}

    @property
    def save_dir(self) -> str:
        return str(self.root.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """The writer of the run `train`."""
        return self._writer("train")

    def _writer(self, stage: str) -> "SummaryWriter":
        if stage not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            _hide_failures_of_threads()
            self._writers[stage] = SummaryWriter(str(self.root / stage), **self.options)
        return self._writers[stage]

    @rank_zero_only
    def log_graph(self, model: Any, input_array: torch.Tensor | None = None) -> None:
        """Draw `model.model`, once. Lightning calls this before anything is logged."""
        if not self._started and model.trainer.state.fn == "fit":
            self._start(model.trainer.ckpt_path)
        data = model.trainer.datamodule
        if not self._draw_graph or not hasattr(data, "image_size"):
            return
        self._draw_graph = False
        # A copy: add_graph would switch frozen layers to training mode.
        network = copy.deepcopy(model.model).eval()
        images = torch.zeros(1, data.channels, data.image_size, data.image_size)
        with warnings.catch_warnings(action="ignore"):  # tracing warns at each condition
            try:
                self.experiment.add_graph(network, images.to(model.device))
            except Exception as error:  # not every network can be traced, and none has to be
                reason = str(error).strip().partition("\n")[0]
                log.warning("TensorBoard cannot draw the network: %s", reason)

    def _start(self, checkpoint: str | Path | None) -> None:
        """Remove what an earlier run in this folder has logged, or what will be logged again."""
        self._started = True
        self.finalize("restarted")
        self._writers = {}
        outdated = [self.root]
        if checkpoint is not None:
            # Test and results are written at the end of a run, as a whole.
            outdated = [self.root / "test", self.root / "results"]
            content = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
            self.options["purge_step"] = content["global_step"]
        for folder in outdated:
            shutil.rmtree(folder, ignore_errors=True)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings are logged with the results."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars: `val/loss` is `metrics/loss` of the run `val`.

        At the end of an epoch (with the key `epoch`) the training metrics are left out: the task
        has logged them at its log intervals.
        """
        for name, value in metrics.items():
            if name == "epoch" or ("epoch" in metrics and name in LOGGED_IN_STEPS):
                continue
            stage, _, tag = name.rpartition("/")
            if stage in STAGES:
                self._writer(stage).add_scalar(f"metrics/{tag}", value, step)
            else:
                self.experiment.add_scalar(name if stage else f"training/{name}", value, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[np.ndarray], step: int | None = None) -> None:
        """Log images, uint8 (H, W, 3): `val/predictions` is `images/predictions` of `val`."""
        stage, _, tag = key.partition("/")
        for image in images:
            self._writer(stage).add_image(f"images/{tag}", image, step, dataformats="HWC")

    @rank_zero_only
    def log_results(
        self, settings: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        """Log a row of the HParams tab.

        SummaryWriter.add_hparams would also fix the columns for all runs by those of this one.
        """
        from torch.utils.tensorboard import FileWriter
        from torch.utils.tensorboard.summary import hparams, scalar

        writer = FileWriter(str(self.root / "results"))
        for name, value in metrics.items():
            writer.add_summary(scalar(name, value), step)
        for summary in hparams(dict(settings), dict(metrics))[1:]:
            writer.add_summary(summary)
        writer.close()

    def save(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """What was logged before a checkpoint must be on the disk when the checkpoint is."""
        self.save()

    def finalize(self, status: str) -> None:
        """Close the files; what is logged later opens new ones."""
        for writer in self._writers.values():
            writer.close()


def _hide_failures_of_threads() -> None:
    """Let TensorBoard's writing thread print nothing: it raises in the main thread as well."""
    report = threading.excepthook
    if getattr(report, "hides_tensorboard", False):
        return

    def report_others(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            report(failure)

    report_others.hides_tensorboard = True  # type: ignore[attr-defined]
    threading.excepthook = report_others
