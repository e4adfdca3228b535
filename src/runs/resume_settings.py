"""Which settings a resumed run may have otherwise than before.

A key belongs to the list that holds it, or else the longest part of its name. What no list holds
is allowed on request.
"""

from collections.abc import Mapping
from typing import Any, Literal

from .checkpoint import to_plain
from .run_folder import flatten

Kind = Literal["free", "on request", "fixed"]

# Without an effect on the training.
FREE = (
    "resume", "resume_changes", "test", "check", "find_lr", "lr_finder", "reproduce",
    "logger", "metrics",
    "data.root", "data.csv", "data.cache_dir", "data.cache_gb", "data.num_workers",
    "data.pin_memory", "data.device_resident", "data.eval_batch_size",
    "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.fast_dev_run",
    "trainer.limit_test_batches", "trainer.num_sanity_val_steps", "trainer.log_every_n_steps",
    "trainer.profiler", "trainer.detect_anomaly", "trainer.enable_model_summary",
    "trainer.enable_progress_bar", "trainer.enable_checkpointing",
    "callbacks.best.dirpath", "callbacks.best.enabled", "callbacks.early_stopping",
    "callbacks.image_logger", "callbacks.last", "callbacks.nan_guard", "callbacks.output_check",
    "callbacks.progress", "callbacks.report", "callbacks.run_recorder", "callbacks.stop_signals",
    "callbacks.throughput",
)  # fmt: skip
# They change the training, and its state fits all the same: `resume_changes=true` allows them.
ON_REQUEST = (
    "trainer", "callbacks", "task",
    "data.augment", "data.mixup", "data.cutmix", "data.balance", "data.bad_files",
    "data.batch_size", "data.drop_last",
)  # fmt: skip
# The state in the checkpoint does not fit them, or takes their place: the learning rate comes from
# the state of the optimizer. Other validation images would be those that were trained on.
FIXED = (
    "seed", "model", "data", "optimizer", "scheduler", "trainer._target_",
    "task._target_", "task.backbone_lr", "task.decay_norm_and_bias",
    "callbacks.best", "callbacks.ema", "callbacks.freeze_backbone", "callbacks.step_seed",
    "callbacks.swa",
)  # fmt: skip


def kind(key: str) -> Kind | None:
    """The list that a dotted key belongs to; None for a key that no list knows."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in FREE:
            return "free"
        if name in ON_REQUEST:
            return "on request"
        if name in FIXED:
            return "fixed"
    return None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings that differ and are not free: `key`, `before` and `after` of each."""
    old, new = flatten(before), flatten(after)
    return [
        {"key": key, "before": old.get(key), "after": new.get(key)}
        for key in old | new
        if old.get(key) != new.get(key) and kind(key) != "free"
    ]


def all_changes(content: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The changes that earlier resumed runs have made, and those since a checkpoint was written."""
    step = {"step": content["global_step"]}
    new = changes(stored_config(content) or {}, config)
    return [*content["run_record"].get("changes", []), *(change | step for change in new)]


def stored_config(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of the run that has written a checkpoint; None where the file has none."""
    for name in ("description", "run_record"):  # the second is of a plain LightningModule
        part = content.get(name)
        config = part.get("config") if isinstance(part, dict) else None
        if isinstance(config, dict):
            return to_plain(config)
    return None
