"""Settings that no signature describes, and settings that do not work together."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import UserError

AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
# Keys that belong to no target.
ROOT: dict[str, Any] = {
    "seed": int,
    "resume": str | None,
    "resume_changes": bool,
    "test": bool,
    "check": bool | Literal["data"],
    "find_lr": bool,
    "reproduce": str | None,
}
# Keys that are taken before a target is called, and values that Lightning takes and cannot use.
NODES: dict[str, Any] = {
    "scheduler.interval": Literal["epoch", "step"],
    "scheduler.monitor": str,
    "trainer.max_epochs": AtLeastOne | Literal[-1] | None,
    "trainer.accumulate_grad_batches": AtLeastOne,
    "trainer.check_val_every_n_epoch": AtLeastOne | None,
    "trainer.val_check_interval": Positive | str | dict[str, float] | None,
    "trainer.limit_train_batches": Positive | None,
    "trainer.log_every_n_steps": Annotated[int, Field(ge=0)] | None,
}
# A run can be made without `metrics`, `logger` and, if the task has a network of its own, `model`.
OBJECTS = {"data": "datamodules", "model": "models", "task": "tasks"}  # where classes lie
RECIPES = ("experiment", "debug")  # their keys are those of the run
GROUPS = ("data", "task", "optimizer", "scheduler", "trainer", "callbacks")


def annotation_of(key: str) -> Any:
    """The type of a dotted key, where the signature of its target does not give it."""
    group, *_, name = key.split(".")
    return bool if group == "callbacks" and name == "enabled" else NODES.get(key)


def check_groups(config: Mapping[str, Any]) -> None:
    """Check that a run has all its parts.

    Raises:
        UserError: a part that is not chosen, or whose file does not say what it builds; a recipe
            whose keys are not those of the run.
    """
    for group in RECIPES:
        if config.get(group):
            raise UserError(
                f"The chosen file in conf/{group}/ has no effect without its first line.",
                "Begin the file with this comment: # @package _global_",
            )
    for group in (*GROUPS, *(name for name in OBJECTS if name in config)):
        if group not in config:  # NAME=[] takes it out
            raise UserError(
                f"Nothing is chosen for {group}.",
                f"Set {group}=NAME; python train.py --help lists the names.",
            )
        node = config[group]
        if group in OBJECTS and not (isinstance(node, Mapping) and node.get("_target_")):
            raise UserError(
                f"{group} has no _target_.",
                f"The chosen file in conf/{group}/ needs a line such as "
                f"_target_: src.{OBJECTS[group]}.my_file.MyClass.",
            )

    for name, node in (config["callbacks"] or {}).items():
        if node and not (isinstance(node, Mapping) and node.get("_target_")):
            raise UserError(
                f"callbacks.{name} has no _target_.",
                "Name its class: _target_: src.callbacks.my_file.MyCallback. An existing callback "
                "is changed under its own name.",
            )


def check_settings(config: Mapping[str, Any]) -> None:
    """Check the values of a config against one another.

    Raises:
        UserError: the first that cannot work.
    """
    optimizer, scheduler = config["optimizer"] or {}, config["scheduler"] or {}
    trainer, callbacks = config["trainer"], config["callbacks"] or {}
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
    if is_enabled(callbacks.get("ema")) and is_enabled(callbacks.get("swa")):
        raise UserError(
            "callbacks.ema and callbacks.swa both average the weights, and one undoes the other.",
            "Choose one of them.",
        )


def is_enabled(node: Mapping[str, Any] | None) -> bool:
    """Whether a callback takes part in the run."""
    return node is not None and bool(node) and bool(node.get("enabled", True))
