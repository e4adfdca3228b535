"""The classification task: the step of training, the metrics of evaluation and the optimizer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from . import optim
from .metrics import Evaluation, EvaluationMetrics
from .running import RunningMetrics, StepCounter


class ClassificationTask(L.LightningModule):
    """Trains and evaluates a network with one label per image.

    Logs `train/loss` and `train/acc` over the epoch as it was trained, and `val/*` and `test/*`:
    `loss` (cross-entropy, never smoothed or weighted), `acc`, `acc_balanced` and `acc_top5`.

    To change a step, override `training_step`; it returns the loss, or a dict of loss and logits.

    Args:
        model: (N, C, H, W) normalized float images -> (N, num_classes) logits.
        classes: class names, in the order of the logits.
        mean, std: normalization per channel, for pixels scaled to 0..1.
        loss: criterion of training; None is cross-entropy.
        optimizer: called with the parameters; None is SGD(lr=0.05, momentum=0.9).
        scheduler: called with the optimizer; None keeps the learning rate.
        interval, monitor: the scheduler steps per `epoch` or `step`; a plateau watches a metric.
        metrics: extra metrics by name, each giving one number.
        backbone_lr: learning rate of all but the last layer, as a fraction of the optimizer's.
        decay_norm_and_bias: False leaves norm layers and biases out of weight decay.
        description: plain facts about network and data for the checkpoints.
    """

    mean: torch.Tensor  # (1, C, 1, 1)
    std: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        loss: nn.Module | None = None,
        optimizer: optim.OptimizerFactory | None = None,
        scheduler: optim.SchedulerFactory | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        monitor: str = "val/loss",
        metrics: Mapping[str, Metric] | None = None,
        backbone_lr: float = 1.0,
        decay_norm_and_bias: bool = True,
        description: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.model = model
        self.classes = list(classes)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.loss = loss or nn.CrossEntropyLoss()
        self.eval_loss = nn.CrossEntropyLoss()
        self.optimizer_factory = optimizer or partial(torch.optim.SGD, lr=0.05, momentum=0.9)
        self.scheduler_factory = scheduler
        self.interval, self.monitor = interval, monitor
        self.backbone_lr, self.decay_norm_and_bias = backbone_lr, decay_norm_and_bias
        self.description = dict(description or {})
        self.memory_format = torch.contiguous_format
        self.running = RunningMetrics()
        self.val_metrics = EvaluationMetrics(len(self.classes), metrics)
        self.test_metrics = EvaluationMetrics(len(self.classes), metrics)
        self.evaluations: dict[str, Evaluation] = {}  # "val", "test": the last pass
        self._images_seen = 0  # in the current pass

    @property
    def metric_names(self) -> set[str]:
        """What a callback or a scheduler can monitor."""
        return {"train/loss", "train/acc", "lr"} | {f"val/{n}" for n in self.val_metrics.names}

    @property
    def head(self) -> nn.Module:
        """The last layer of the network; the rest is the backbone."""
        return optim.find_head(self.model, len(self.classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 images (N, C, H, W), or cached features (N, D) -> logits (N, num_classes)."""
        if images.ndim == 2:
            return self.head(images)
        return self.model(self.normalize(images))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8, or float from 0 to 255, (N, C, H, W) -> (pixels / 255 - mean) / std."""
        images = images.to(self.mean.dtype, copy=True).div_(255).sub_(self.mean).div_(self.std)
        return images.contiguous(memory_format=self.memory_format)

    # Training

    def training_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> Any:
        images, labels = batch
        logits = self(images)
        return {"loss": self.loss(logits, labels), "logits": logits.detach()}

    def on_train_start(self) -> None:
        self.running.reset(self.device)

    def configure_callbacks(self) -> list[L.Callback]:
        return [StepCounter()]

    def log_interval(self) -> None:
        """Log `train/loss` since the last interval, for the curves inside an epoch."""
        if self.running.count:
            loss = self.running.close_interval(self.trainer.strategy)
            self._log_at_step({"train/loss": loss, "lr": float(self.running.lr)})

    def _log_at_step(self, metrics: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(metrics, max(self.global_step - 1, 0))  # steps count from 0

    def on_train_epoch_end(self) -> None:
        self.log_interval()
        metrics = {f"train/{name}": value for name, value in self.running.compute().items()}
        self.running.reset(self.device)
        if metrics:
            # Before the checkpoint of this epoch is saved, so that a resumed run has it.
            if "train/acc" in metrics:
                self._log_at_step({"train/acc": metrics["train/acc"]})
            metrics["lr"] = float(self.running.lr)
        self.log_dict(metrics, logger=bool(self.loggers))

    # Validation and test

    def validation_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics)

    def _evaluate(self, batch: Sequence[torch.Tensor], metrics: EvaluationMetrics) -> None:
        images, labels = batch
        logits = self(images)
        # Several processes take the images in turn.
        indices = torch.arange(len(labels), device=labels.device) + self._images_seen
        positions = indices * self.trainer.world_size + self.trainer.global_rank
        self._images_seen += len(labels)
        metrics.update(logits, labels, self.eval_loss(logits.float(), labels), positions)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test", self.test_metrics)

    def _log_evaluation(self, stage: str, metrics: EvaluationMetrics) -> None:
        self.evaluations[stage] = metrics.compute()
        metrics.reset()
        self._images_seen = 0
        values = {f"{stage}/{k}": v for k, v in self.evaluations[stage].metrics.items()}
        after_training = stage == "val" and self.trainer.state.fn != "fit"  # not part of the curves
        self.log_dict(values, logger=bool(self.loggers) and not after_training)

    # Optimizer and checkpoints

    def configure_optimizers(self) -> Any:
        head = self.head if self.backbone_lr != 1 else None
        groups = optim.parameter_groups(self.model, head, self.decay_norm_and_bias)
        fused = optim.can_fuse(self.trainer)
        optimizer = optim.build_optimizer(self.optimizer_factory, groups, self.backbone_lr, fused)
        if self.scheduler_factory is None:
            return optimizer
        length = partial(optim.run_length, self.trainer, self.interval)
        scheduler = optim.build_scheduler(self.scheduler_factory, optimizer, length)
        # For the length Lightning has made the loader before the checkpoint of a resumed run is
        # read. It restores the position in the epoch only to a loader that it makes afterwards.
        self.trainer.fit_loop._combined_loader = None
        timing: dict[str, Any] = {"interval": self.interval, "monitor": self.monitor}
        if isinstance(scheduler, ReduceLROnPlateau):  # it steps only in epochs with a validation
            timing["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **timing}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the network and its input in the file, in plain types."""
        checkpoint["description"] = {
            **self.description,
            "classes": self.classes,
            "channels": self.mean.shape[1],
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "metrics": {k: float(v) for k, v in self.trainer.callback_metrics.items()},
        }
        checkpoint["running_metrics"] = self.running.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the counts of an epoch that a run stopped in."""
        self.running.stored = checkpoint.get("running_metrics")
