"""Whether a run can start in its folder, and whether a run can be resumed with other settings."""

import logging
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.plain import plain_config
from ..errors import UserError
from ..runs import RunFolder, checkpoint
from ..runs.run_folder import flatten, last_checkpoint
from ..tasks.optim import LENGTH_ARGUMENTS
from .failures import is_first_process

log = logging.getLogger(__name__)

# Settings that change the arithmetic of the training: a resumed run keeps them ...
FIXED = (
    "seed",
    "model",
    "optimizer",
    "scheduler",
    "task",
    "data",
    "callbacks.class_weights",
    "callbacks.ema",
    "callbacks.freeze_backbone",
    "callbacks.step_seed",
    "callbacks.swa",
    "trainer.accumulate_grad_batches",
    "trainer.devices",
    "trainer.gradient_clip_algorithm",
    "trainer.gradient_clip_val",
    "trainer.limit_train_batches",
    "trainer.num_nodes",
    "trainer.overfit_batches",
    "trainer.precision",
    "trainer.sync_batchnorm",
)
# ... except for these.
FREE = (
    "data.root",
    "data.num_workers",
    "data.pin_memory",
    "data.eval_batch_size",
    "data.device_resident",
    "data.cache_dir",
    "data.cache_gb",
    "data.bad_files",
)
# Keys of a checkpoint that a training needs to continue.
STATE_KEYS = ("loops", "callbacks", "optimizer_states", "lr_schedulers")


def check_run_dir(cfg: DictConfig, run_dir: Path) -> None:
    """Refuse a folder with a run in it, unless that run is resumed and can be.

    Raises:
        UserError: the folder holds a run; or the run cannot be resumed with these settings.
    """
    if cfg.resume:
        check_resumable(cfg)
    elif is_first_process() and (last_checkpoint(run_dir) or RunFolder(run_dir).has_results()):
        command = shlex.quote(f"resume={run_dir}")
        raise UserError(
            f"{run_dir} already holds a run.",
            f"Choose another folder, remove it, or resume the run: python train.py {command}",
        )


def check_resumable(cfg: DictConfig) -> None:
    """Compare the settings with those that the checkpoint `cfg.resume` was written with.

    Raises:
        UserError: the checkpoint is damaged or holds no training; a setting that a run cannot
            change; a schedule that was planned for another length.
    """
    config = plain_config(cfg)
    stored = checkpoint.read_state(Path(cfg.resume))
    if "description" in stored:  # otherwise it is of a plain LightningModule
        checkpoint.check(Path(cfg.resume), stored)
    record = stored.get("description") or stored.get("run_record") or {}
    before = record.get("config")
    if not before or not all(key in stored for key in STATE_KEYS):
        raise UserError(
            f"{cfg.resume} does not hold the state of a training.",
            "Resume from a checkpoint that train.py has written.",
        )
    _check_length(cfg, before)
    _check_remaining(cfg, stored)
    old, new = flatten(before), flatten(checkpoint.to_plain(config))
    for key in changed_keys(old, new):
        raise UserError(
            f"{key} was {old.get(key)} when this run began and cannot become {new.get(key)}.",
            f"Leave {_typed(key)} out of the command, or start a new run without resume.",
        )


def _typed(key: str) -> str:
    """What a person types to change a key: the group instead of its `_target_`."""
    return f"{key.removesuffix('._target_')}=..."


def _check_length(cfg: DictConfig, before: dict[str, Any]) -> None:
    epochs = (before.get("trainer") or {}).get("max_epochs")
    fixed_length = any(name in cfg.scheduler for name in LENGTH_ARGUMENTS)
    if fixed_length and epochs not in (None, cfg.trainer.max_epochs):
        raise UserError(
            f"The schedule of this run was planned for {epochs} epochs, not for "
            f"{cfg.trainer.max_epochs}.",
            f"Resume with trainer.max_epochs={epochs}, or start a new run.",
        )


def _check_remaining(cfg: DictConfig, stored: Mapping[str, Any]) -> None:
    """Refuse a length that is shorter than what was trained, and say where nothing is left."""
    epochs = stored["loops"]["fit_loop"]["epoch_progress"]["current"]
    done = {
        "max_epochs": (epochs["ready"], epochs["processed"]),
        "max_steps": (stored["global_step"], stored["global_step"]),
    }
    for key, (begun, finished) in done.items():
        limit = cfg.trainer.get(key)
        if limit is None or limit == -1:
            continue
        if limit < begun:
            raise UserError(
                f"trainer.{key}={limit}, but this run has done {begun} already.",
                f"Leave trainer.{key} out, or set it above {begun}.",
            )
        if limit == finished:
            log.info(
                "Nothing is left to train: trainer.%s is %s. A higher one goes on.", key, limit
            )


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Fixed settings, dotted, with another value than before."""
    for key in old | new:
        fixed = any(key == name or key.startswith(f"{name}.") for name in FIXED)
        if fixed and key not in FREE and old.get(key) != new.get(key):
            yield key
