"""The base class of the callbacks in this folder, and the metrics that several of them read."""

from typing import Any

import lightning as L


class EpochCallback(L.Callback):
    """A callback whose hooks of single steps are None unless a subclass defines them.

    Lightning calls every hook of every callback in every step, which takes noticeable time with
    small batches. It skips hooks that are not callable.
    """

    on_train_batch_start: Any = None
    on_before_zero_grad: Any = None
    on_before_backward: Any = None
    on_after_backward: Any = None
    on_before_optimizer_step: Any = None
    on_train_batch_end: Any = None
    on_validation_batch_start: Any = None
    on_validation_batch_end: Any = None
    on_test_batch_start: Any = None
    on_test_batch_end: Any = None
    on_predict_batch_start: Any = None
    on_predict_batch_end: Any = None


def epoch_metrics(trainer: L.Trainer) -> dict[str, float]:
    """The metrics that were logged last, rounded to the seven digits that float32 holds."""
    return {name: float(f"{float(v):.7g}") for name, v in trainer.callback_metrics.items()}
