"""The training task: what happens to a batch, what is measured, what the optimizer sees. It knows no data set."""

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from torch import nn
from torchmetrics import Metric

from src.errors import UserError
from src.tasks.fine_tuning import head_of, parameter_groups, set_frozen
from src.tasks.metrics import Metrics, Sums
from src.tasks.predictions import PredictionCollector, Predictions

log = logging.getLogger(__name__)

OptimizerFactory = Callable[..., torch.optim.Optimizer]
SchedulerFactory = Callable[..., torch.optim.lr_scheduler.LRScheduler]

# Arguments of schedulers that stand for the length of the run. Given as None, they are filled in when it is known.
LENGTHS = ("total_steps", "T_max", "total_iters")


class ClassificationTask(L.LightningModule):
    """Trains `model` to tell `classes` apart, and measures it.

    Logs `train/loss` and `train/acc` (over the epoch as it was trained, augmentation and dropout included), `val/*` and `test/*`:
    `loss` (cross-entropy a picture, never smoothed or weighted, so that runs compare), `acc`, `acc_top5` (with more than five
    classes), `acc_balanced`, the mean of the classes' accuracies, and `metrics`. Accuracies are fractions, 0 to 1.

    Args:
        model: (N, C, H, W) normalised float images -> (N, num_classes) logits.
        classes: class names, in the order of the logits.
        mean, std: normalisation by channel, for pixels scaled to 0..1; kept as buffers, so they travel with the weights.
        loss: criterion for training; None is cross-entropy.
        optimizer: called with the parameters; None is SGD(lr=0.05, momentum=0.9).
        scheduler: called with the optimizer; None keeps the rate. Arguments named total_steps, T_max or total_iters that are None
            get the length of the run, a `max_lr` that is None gets the optimizer's rate.
        interval: the scheduler moves on every `epoch` or every `step`.
        monitor: the metric that a plateau scheduler watches.
        metrics: further ones of torchmetrics by name, each giving one number from logits and labels; copied for each split.
        channels_last: memory layout of the convolutions; None chooses it where it pays.
        compile: compile the network with torch.compile.
        freeze_backbone: True trains the head alone (the last layer), a number does so for so many first epochs. What is frozen stays
            in evaluation mode, batch norm included. With True and pictures that no augmentation changes, what the backbone makes of
            them is computed once and kept.
        backbone_lr: learning rate of all but the head, as a share of the optimizer's.
        decay_norm_and_bias: False leaves norm layers and biases out of weight decay.
        description: plain facts about network and data that every checkpoint shall carry, see `src.checkpoint`.
    """

    mean: torch.Tensor  # (1, C, 1, 1)
    std: torch.Tensor
    _head: Any  # nn.Module, or None where nothing hangs on it

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        monitor: str = "val/loss",
        metrics: Mapping[str, Metric] | None = None,
        channels_last: bool | None = None,
        compile: bool = False,
        freeze_backbone: bool | int = False,
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
        self.eval_loss = nn.CrossEntropyLoss()  # smoothing and weights shape the training, not what is reported
        self.optimizer_factory = optimizer or partial(torch.optim.SGD, lr=0.05, momentum=0.9)
        self.scheduler_factory = scheduler
        self.interval, self.monitor = interval, monitor
        self.channels_last, self.compile_model = channels_last, compile
        self.freeze_backbone, self.backbone_lr, self.decay_norm_and_bias = freeze_backbone, backbone_lr, decay_norm_and_bias
        head = head_of(model, len(self.classes)) if freeze_backbone or backbone_lr != 1 else None
        object.__setattr__(self, "_head", head)  # a part of the model already: no second name for it in the checkpoints
        self.description = dict(description or {})
        self.automatic: dict[str, Any] = {}  # choices made on the user's behalf, for run.json
        self.val_metrics, self.test_metrics = (Metrics(len(self.classes), metrics) for _ in range(2))
        self.collector = PredictionCollector(len(self.classes))
        self.figures: dict[str, dict[str, float]] = {}  # stage -> loss, acc, ... of its last pass, in full precision
        self.confusion: dict[str, torch.Tensor] = {}  # stage -> (true class, predicted class) counts of its last pass
        self.predictions: dict[str, Predictions] = {}  # stage -> what was said of each picture, in its last pass outside of fit
        self._seen = 0
        self._sums = Sums()

    @property
    def metric_names(self) -> set[str]:
        """What a callback or a schedule can monitor."""
        return {"train/loss", "train/acc", "lr", *(f"val/{name}" for name in self.val_metrics.names)}

    # The network ------------------------------------------------------------------------------------------------------

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) images, or kept features (N, D) of the backbone -> (N, num_classes) logits."""
        if images.ndim == 2:
            return self._head(images)
        return self.model(self.normalize(images))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> float, scaled to 0..1, less `mean`, by `std`."""
        images = images.to(self.mean.dtype).div_(255).sub_(self.mean).div_(self.std)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def setup(self, stage: str) -> None:
        """Choose what was left open, once the trainer has told the device and the precision."""
        if self.channels_last is None:
            reduced = "16" in str(self.trainer.precision)
            convolutional = any(isinstance(m, nn.Conv2d) for m in self.model.modules())
            self.channels_last = convolutional and (self.device.type == "cpu" or reduced)
            self.automatic["channels_last"] = self.channels_last
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if stage == "fit":
            data = self.trainer.datamodule
            if data is not None and "model" not in self.description:
                self._try_network(data.channels, data.image_size)
            self.description.setdefault("image_size", getattr(data, "image_size", None))
            self.weigh(getattr(data, "class_weights", None))
            if self.compile_model:
                self.model.compile()
            if self.freeze_backbone:
                self._freeze(True)
            if not any(p.requires_grad for p in self.model.parameters()):
                raise UserError(
                    f"{type(self.model).__name__} is frozen: no parameter is left to train.", "Release some of them, its head for one."
                )

    def weigh(self, weights: torch.Tensor | None) -> None:
        """Weigh the classes in the training loss by (num_classes,); None leaves it alone.

        Before `fit` where weights are averaged: callbacks copy the module before its own `setup` comes.
        """
        if weights is not None:
            self.loss.register_buffer("weight", weights.to(self.mean.device), persistent=False)

    # Fine-tuning ------------------------------------------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether the backbone is frozen in the current epoch."""
        if isinstance(self.freeze_backbone, bool):
            return self.freeze_backbone
        return self.current_epoch < self.freeze_backbone

    def _freeze(self, frozen: bool) -> None:
        if not isinstance(self.freeze_backbone, bool) and self.trainer.world_size > 1:
            raise UserError(
                f"task.freeze_backbone={self.freeze_backbone} releases the backbone during the run, which several processes cannot.",
                "Use task.freeze_backbone=true or false, or one process.",
            )
        set_frozen(self.model, self._head, frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ClassificationTask":
        """Training mode for all that is trained; what is frozen stays in evaluation mode."""
        super().train(mode)
        if mode and self.freeze_backbone and self._trainer is not None and self.frozen:
            self.model.eval()
            self._head.train()
        return self

    def on_train_epoch_start(self) -> None:
        if self.freeze_backbone:
            self._freeze(self.frozen)

    def _keep_features(self) -> None:
        """Let the data hand out what the frozen backbone makes of them, where that never changes."""
        data = self.trainer.datamodule
        if self.freeze_backbone is not True or not hasattr(data, "keep_features") or self.trainer.world_size > 1:
            return
        if data.augment is None and not data.mixup and not data.cutmix and self._head_sees_features(data):
            log.info("The backbone is frozen and no augmentation is on: its features of every picture are computed once ...")
            for split in ("train", "val"):
                data.keep_features(split, self._features)
            self.automatic["kept_features"] = True

    @torch.no_grad()
    def _features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> what the head gets of them, (N, D)."""
        seen = []
        handle = self._head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        was_training = self.training
        try:
            self.eval()
            with self.trainer.precision_plugin.forward_context():
                self(images)
        finally:
            handle.remove()
            self.train(was_training)
        return seen[-1]

    def _head_sees_features(self, data: Any) -> bool:
        """Whether the head takes one vector a picture and nothing comes behind it."""
        images = torch.randint(0, 256, (2, data.channels, data.image_size, data.image_size), dtype=torch.uint8, device=self.device)
        features = self._features(images)
        if features.ndim != 2:
            return False
        self.eval()
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            same = torch.allclose(self(features), self(images), rtol=1e-3, atol=1e-4)
        self.train()
        return same

    def _try_network(self, channels: int, size: int) -> None:
        """Two empty pictures through a network composed by hand, so that a misfit is told before any data are read."""
        name = type(self.model).__name__
        was_training = self.model.training
        try:
            with torch.no_grad():
                # Not self.device, where Lightning is going to move the weights behind this.
                logits = self.model.eval()(torch.zeros(2, channels, size, size, device=self.mean.device))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{name} cannot take pictures of {channels}x{size}x{size}: {error}.",
                "Build it with in_channels=data.channels, and with image_size=data.image_size where it asks for it.",
            ) from None
        finally:
            self.model.train(was_training)
        if logits.shape != (2, len(self.classes)):
            raise UserError(
                f"{name} gives {tuple(logits.shape[1:])} figures a picture for {len(self.classes)} classes.",
                "Build it with num_classes=len(data.classes).",
            )

    # Training ---------------------------------------------------------------------------------------------------------

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Nothing in here waits for the device, but once every `log_every_n_steps` steps."""
        images, labels = batch
        self._sums.rate = self.trainer.optimizers[0].param_groups[-1]["lr"]  # of this step: schedules move on before an epoch is logged
        logits = self(images)
        loss = self.loss(logits, labels)
        self._sums.add(loss.detach(), logits.detach(), labels if labels.ndim == 1 else labels.argmax(1))
        every = self.trainer.log_every_n_steps  # 0: at the end of the epoch alone
        if every and (batch_idx + 1) % every == 0:
            self._log_mark(self.global_step)
        return loss

    def _log_mark(self, step: int) -> None:
        """`train/loss` since the last mark, for the curves inside an epoch. `step` counts from 0, as Lightning does for its own."""
        if self._sums.count == 0:
            return
        loss = self._sums.close_mark(self.trainer.strategy)
        if not math.isfinite(loss):
            raise self._diverged(str(loss))
        for logger in self.loggers:
            logger.log_metrics({"train/loss": loss, "lr": float(self._sums.rate)}, step)

    def _diverged(self, value: str, what: str = "train/loss") -> UserError:
        return UserError(
            f"{what} became {value} in epoch {self.current_epoch}, step {self.global_step}.",
            "Lower optimizer.lr, or limit the gradients with trainer.gradient_clip_val=1; the last good checkpoint is kept.",
        )

    def on_train_start(self) -> None:
        # Not on_train_epoch_start: Lightning leaves that out for the epoch that a run is resumed in the middle of.
        self._sums.start_epoch(self.device)
        self.on_train_epoch_start()

    def on_train_epoch_end(self) -> None:
        self._log_mark(self.global_step - 1)  # of the last step, which has been taken
        loss, acc = self._sums.epoch_means()
        for logger in self.loggers:  # here and not with the other figures below: those come behind the epoch's checkpoint
            logger.log_metrics({"train/acc": acc}, self.global_step - 1)
        self._sums.start_epoch(self.device)  # a checkpoint of the finished epoch has nothing to go on counting from
        self.log_dict({"train/loss": loss, "train/acc": acc, "lr": float(self._sums.rate)}, logger=bool(self.loggers))

    # Validation and test ----------------------------------------------------------------------------------------------

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self._evaluate(batch, self.test_metrics)

    def _evaluate(self, batch: tuple[torch.Tensor, torch.Tensor], metrics: Metrics) -> None:
        images, labels = batch
        logits = self(images)
        metrics.update(logits, labels, self.eval_loss(logits.float(), labels))
        if self.trainer.state.fn != "fit":
            # Several processes take the pictures in turn: see `BatchOrder`, or torch's DistributedSampler.
            place = torch.arange(self._seen, self._seen + len(labels), device=labels.device)
            self.collector.update(place * self.trainer.world_size + self.trainer.global_rank, labels, logits)
            self._seen += len(labels)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test", self.test_metrics)

    def _log_metrics(self, stage: str, metrics: Metrics) -> None:
        self.figures[stage], self.confusion[stage] = metrics.compute()
        metrics.reset()
        if self.trainer.state.fn != "fit":
            self.predictions[stage] = self.collector.predictions()
            self.collector.reset()
            self._seen = 0
        # Every process holds the same figures by now: torchmetrics has gathered them.
        # A pass over the validation split behind the training is no part of its curves.
        logged = bool(self.loggers) and (stage == "test" or self.trainer.state.fn == "fit")
        self.log_dict({f"{stage}/{name}": value for name, value in self.figures[stage].items()}, logger=logged)

    # Optimizer --------------------------------------------------------------------------------------------------------

    def configure_optimizers(self):
        """Optimizer and schedule, with what they left open filled in.

        Raises:
            UserError: arguments that torch refuses.
        """
        self._keep_features()  # here the network is on its device with its weights, and no loader has been made yet
        try:
            optimizer = self._optimizer()
            scheduler = self._scheduler(optimizer, self._run_length)
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:  # the last: a one-cycle of two steps
            raise _misfit(error) from error
        if scheduler is None:
            return optimizer
        timing: dict[str, Any] = {"interval": self.interval, "monitor": self.monitor}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):  # it can look only where something was measured
            timing["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **timing}}

    def try_settings(self) -> None:
        """Loss, optimizer and schedule on next to nothing, so that arguments which torch refuses are told before any data are read.

        Raises:
            UserError: such arguments.
        """
        try:
            self.loss(torch.zeros(2, len(self.classes)), torch.tensor([0, 1]))
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise UserError(f"The loss cannot be computed: {error}.", "Check the keys under task.loss.") from error
        try:
            optimizer = self.optimizer_factory([nn.Parameter(torch.zeros(1))])
            scheduler = self._scheduler(optimizer, lambda: 1_000_000)  # the length is not known yet: long enough for any warm-up
            with warnings.catch_warnings(action="ignore"):  # of a schedule that moves before its optimizer
                if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(0.0)
                elif scheduler is not None:
                    scheduler.step()
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise _misfit(error) from error

    def _optimizer(self) -> torch.optim.Optimizer:
        choice = {}
        if getattr(self.optimizer_factory, "keywords", {}).get("fused", True) is None:
            # Lightning refuses a fused optimizer with clipped gradients under mixed precision.
            clipped = self.trainer.gradient_clip_val and "mixed" in str(self.trainer.precision)
            choice["fused"] = self.device.type in ("cpu", "cuda") and not clipped
            self.automatic.update(choice)
        if self._head is None and self.decay_norm_and_bias:
            return self.optimizer_factory([p for p in self.model.parameters() if p.requires_grad], **choice)
        if self.freeze_backbone is True:
            groups = parameter_groups(self._head, None, self.decay_norm_and_bias)
        else:
            groups = parameter_groups(self.model, self._head, self.decay_norm_and_bias)
        optimizer = self.optimizer_factory(groups, **choice)
        for group in optimizer.param_groups:
            if group["backbone"]:
                group["lr"] *= self.backbone_lr
        return optimizer

    def _scheduler(self, optimizer: torch.optim.Optimizer, length: Callable[[], int]) -> torch.optim.lr_scheduler.LRScheduler | None:
        if self.scheduler_factory is None:
            return None
        given = getattr(self.scheduler_factory, "keywords", {})
        left_open: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.scheduler_factory).parameters.items():
            missing = given.get(name, parameter.default)
            if name in LENGTHS and (missing is None or missing is inspect.Parameter.empty):
                left_open[name] = length()
            if name == "max_lr" and (missing is None or missing is inspect.Parameter.empty):
                left_open[name] = [group["lr"] for group in optimizer.param_groups]
        return self.scheduler_factory(optimizer, **left_open)

    def _run_length(self) -> int:
        """Steps or epochs of the whole run, whichever the scheduler counts in."""
        length = self.trainer.max_epochs if self.interval == "epoch" else self.trainer.estimated_stepping_batches
        if not 0 < length < math.inf:
            raise UserError(
                "The schedule needs to know the length of the run, and trainer.max_epochs does not tell it.",
                "Set trainer.max_epochs, or choose scheduler=step or scheduler=constant.",
            )
        return int(length)

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the file describe itself, in plain types.

        Raises:
            UserError: weights or losses that are no numbers, which must not replace a good checkpoint.
        """
        finite = bool(self._sums.mark.isfinite().all())
        if not finite or not all(t.isfinite().all() for t in checkpoint["state_dict"].values() if t.is_floating_point()):
            raise self._diverged("nan or infinite" if finite else "nan", "The weights" if finite else "train/loss")
        checkpoint["description"] = {
            **self.description,
            "classes": self.classes,
            "channels": self.mean.shape[1],
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
        }
        checkpoint["epoch_sums"] = self._sums.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run resumed in the middle of an epoch goes on counting where it stopped."""
        self._sums.resume = checkpoint.get("epoch_sums")


def _misfit(error: Exception) -> UserError:
    return UserError(f"The optimizer or its schedule cannot be built: {error}.", "Check the keys under optimizer and scheduler.")
