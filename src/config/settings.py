"""Settings that are valid one by one and do not work, or do not work together."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError

# Without `metrics` and `logger` a run can be made.
GROUPS = ("data", "model", "task", "optimizer", "scheduler", "trainer", "callbacks")
# Counts that Lightning divides by without checking them.
LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "val_check_interval": 0,
}
NOT_ZERO = ("max_epochs", "limit_train_batches", "limit_val_batches", "val_check_interval")


def check_settings(config: Mapping[str, Any]) -> None:
    """Check the values of a config against one another.

    Raises:
        UserError: the first that cannot work.
    """
    for group in GROUPS:
        if group not in config:  # NAME=[] takes it out
            raise UserError(
                f"Nothing is chosen for {group}.",
                f"Set {group}=NAME; python train.py --help lists the names.",
            )
    _check_trainer(config["trainer"])
    _check_optimizer(config["optimizer"] or {}, config["scheduler"] or {}, config["trainer"])
    _check_averages(config["callbacks"] or {})


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for key in NOT_ZERO:
        if trainer.get(key) == 0:
            raise UserError(
                f"trainer.{key}=0 leaves nothing to train on or to choose a checkpoint by.",
                f"Set trainer.{key} to more than 0.",
            )
    for key, least in LEAST.items():
        value = trainer.get(key)
        if isinstance(value, int | float) and value < least:
            raise UserError(
                f"trainer.{key}={value} does not work.", f"Set trainer.{key} to {least} or more."
            )


def _check_optimizer(
    optimizer: Mapping[str, Any], scheduler: Mapping[str, Any], trainer: Mapping[str, Any]
) -> None:
    plateau = str(scheduler.get("_target_")).endswith(".ReduceLROnPlateau")
    if plateau and scheduler.get("interval") == "step":
        raise UserError(
            f"scheduler.interval=step, but {scheduler.get('monitor')} is computed once per epoch.",
            "Leave scheduler.interval=epoch, or choose another scheduler.",
        )
    mixed = "mixed" in str(trainer.get("precision"))
    if optimizer.get("fused") and trainer.get("gradient_clip_val") and mixed:
        raise UserError(
            "optimizer.fused=true cannot clip gradients (trainer.gradient_clip_val) under "
            f"trainer.precision={trainer['precision']}.",
            "Leave optimizer.fused at null, or change one of the other two.",
        )


def _check_averages(callbacks: Mapping[str, Any]) -> None:
    averages = [name for name in ("ema", "swa") if is_enabled(callbacks.get(name))]
    if len(averages) > 1:
        raise UserError(
            "callbacks.ema and callbacks.swa both average the weights, and one undoes the other.",
            "Choose one of them.",
        )


def is_enabled(node: Mapping[str, Any] | None) -> bool:
    """Whether a callback takes part in the run."""
    return node is not None and bool(node) and bool(node.get("enabled", True))
