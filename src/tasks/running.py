"""Loss and accuracy while a network trains."""

import math
from typing import Any

import lightning as L
import torch

from ..errors import UserError


class RunningMetrics:
    """Loss and accuracy over an epoch of training, summed on the device without waiting for it.

    A log interval is a number of steps; closing it is the only moment that reads from the device.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None  # state of a resumed run
        self.lr: float | torch.Tensor = math.nan  # learning rate of the last step
        self.last_loss: float | None = None  # mean over the last closed interval
        self.reset(torch.device("cpu"))

    def reset(self, device: torch.device) -> None:
        """Start an epoch, or continue the one that a resumed run stopped in."""
        self.sums = torch.zeros(2, device=device)
        self.loss_sum, self.correct = self.sums.unbind()  # views: adding to them changes `sums`
        self.count = 0  # images with a loss
        self.predicted = 0  # images with logits
        self.epoch = [0.0, 0.0, 0, 0]  # loss, correct, count, predicted of closed intervals
        if self.stored is not None:
            self.sums.copy_(torch.tensor(self.stored["sums"]))
            self.count, self.predicted = self.stored["counts"]
            self.epoch = list(self.stored["epoch"])
            self.lr = self.stored["lr"]
            self.stored = None

    def update(self, loss: torch.Tensor, logits: torch.Tensor | None, labels: torch.Tensor) -> None:
        """Count a batch.

        Args:
            loss: mean over the batch.
            logits: (N, num_classes), or None where the step does not return them.
            labels: (N,) class indices, or (N, num_classes) probabilities.
        """
        self.loss_sum.add_(loss, alpha=len(labels))
        self.count += len(labels)
        if logits is not None:
            classes = labels if labels.ndim == 1 else labels.argmax(1)
            self.correct.add_((logits.argmax(1) == classes).sum())
            self.predicted += len(labels)

    def close_interval(self, strategy: Any) -> float:
        """The mean loss since the last call, over all processes."""
        totals = torch.cat([self.sums, self.sums.new_tensor([self.count, self.predicted])])
        values = strategy.reduce(totals, reduce_op="sum").tolist()
        self.epoch = [total + value for total, value in zip(self.epoch, values, strict=True)]
        self.sums.zero_()
        self.count = self.predicted = 0
        self.last_loss = values[0] / values[2]
        return self.last_loss

    def compute(self) -> dict[str, float]:
        """`loss` and `acc` of the epoch so far, in this process; this reads from the device."""
        opened = [*self.sums.tolist(), self.count, self.predicted]
        loss, correct, count, predicted = map(sum, zip(self.epoch, opened, strict=True))
        metrics = {"loss": (loss, count), "acc": (correct, predicted)}
        return {name: total / images for name, (total, images) in metrics.items() if images}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in plain types."""
        return {
            "sums": self.sums.tolist(),
            "counts": [self.count, self.predicted],
            "epoch": list(self.epoch),
            "lr": float(self.lr),
        }


class StepCounter(L.Callback):
    """Counts what `training_step` returned, whatever a subclass of the task makes of the step.

    It is a callback, since checkpoints of a step are saved before the hook of the module. Hooks
    that are None cost no time.
    """

    on_before_zero_grad: Any = None
    on_before_backward: Any = None
    on_after_backward: Any = None
    on_before_optimizer_step: Any = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        # The learning rate of this step: schedulers step before the step ends.
        pl_module.running.lr = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not outputs:  # the step was skipped
            return
        loss = outputs["loss"] * trainer.accumulate_grad_batches  # Lightning has divided it
        pl_module.running.update(loss, outputs.get("logits"), batch[1])
        every = trainer.log_every_n_steps  # 0: only at the end of the epoch
        if every and (batch_idx + 1) % every == 0:
            pl_module.log_interval()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if pl_module.automatic_optimization and not pl_module.running.compute():
            raise UserError(
                f"{type(pl_module).__name__}.training_step returned no loss in a whole epoch.",
                'Return the loss, or a dict with "loss" and "logits".',
            )
