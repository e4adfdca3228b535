"""`best.ckpt`: the state with the best value of a monitored metric."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from ..errors import UserError
from .base import EpochCallback


class BestCheckpoint(ModelCheckpoint, EpochCallback):
    """Lightning's ModelCheckpoint for one file, `best.ckpt`.

    It is judged at the end of an epoch, or after each validation where an epoch has several.

    A run whose folder was moved or copied keeps its best value when it is resumed.

    Args:
        monitor: the metric.
        mode: whether a low or a high value is good.
        dirpath: the folder.
        save_top_k: 1; another callback keeps more files.

    Raises:
        UserError: another value of `save_top_k`; a task that does not log the metric; a balanced
            accuracy that is not defined.
    """

    on_train_batch_end: Any = None  # it never saves there

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        dirpath: str | Path | None = None,
        save_top_k: int = 1,
    ):
        if save_top_k != 1:
            raise UserError(
                f"callbacks.best keeps one file, not {save_top_k}.",
                "Add a callback beside it: '+callbacks.top={_target_: "
                "lightning.pytorch.callbacks.ModelCheckpoint, dirpath: null, filename: "
                f'"{{epoch}}", monitor: {monitor}, mode: {mode}, save_top_k: {save_top_k}}}\'',
            )
        super().__init__(dirpath, "best", monitor, mode=mode, enable_version_counter=False)
        self._validated = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated |= not trainer.sanity_checking
        is_of_val = str(self.monitor).startswith("val")
        if self._validated and is_of_val and self.monitor not in trainer.callback_metrics:
            raise UserError(
                f"The task does not log {self.monitor}, by which best.ckpt is chosen.",
                "Log it in validation_step, or set callbacks.best.monitor. Logged so far: "
                f"{', '.join(trainer.callback_metrics) or 'nothing'}.",
            )
        balanced = trainer.callback_metrics.get("val/acc_balanced")
        if self._validated and self.monitor == "val/acc_balanced" and balanced.isnan():
            raise UserError(
                "callbacks.best.monitor=val/acc_balanced, but a class has no validation images: "
                "its value is not known.",
                "Add validation images of each class, or set callbacks.best.monitor=val/loss and "
                "callbacks.best.mode=min.",
            )
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Without a validation there is nothing to judge by, and Lightning would warn.
        if self._validated or self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return type(self).__name__  # Lightning's lists its arguments

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value; its file is in the folder of this run."""
        here: dict[str, Any] = {"dirpath": self.dirpath}
        if state_dict["best_model_path"]:
            path = str(Path(self.dirpath or "") / "best.ckpt")
            here |= {"best_model_path": path, "kth_best_model_path": path}
            here["best_k_models"] = {path: state_dict["best_model_score"]}
        super().load_state_dict(state_dict | here)
