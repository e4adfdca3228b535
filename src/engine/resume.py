"""Whether a run can start in its folder, and whether a run can be resumed with other settings."""

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

from omegaconf import DictConfig
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypeAliasType, TypedDict  # those of typing: from Python 3.12 on

from ..config.plain import plain_config
from ..errors import UserError
from ..runs import RunFolder, checkpoint
from ..runs.resume_settings import changes, kind, stored_config
from ..runs.run_folder import last_checkpoint
from ..tasks.optim import LENGTH_ARGUMENTS
from .failures import is_first_process

log = logging.getLogger(__name__)


class _Optimizer(TypedDict):
    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


_Counts = TypeAliasType("_Counts", "int | dict[str, _Counts]")


class _Record(TypedDict):
    rows: list[dict[str, float | None]]
    best: dict[str, Any] | None


class _State(TypedDict):
    """What a training needs to continue."""

    loops: dict[str, dict[str, Any]]
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: list[_Optimizer]
    lr_schedulers: list[dict[str, Any]]
    global_step: int
    run_record: NotRequired[_Record]


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
    before = stored_config(stored)
    if before is None or not _holds_training(stored):
        raise UserError(
            f"{cfg.resume} does not hold the state of a training.",
            "Resume from a checkpoint that train.py has written.",
        )
    _check_length(cfg, before)
    _check_remaining(cfg, stored)
    changed = changes(before, checkpoint.to_plain(config))
    for change in changed:
        _check_change(change, allowed=bool(cfg.get("resume_changes")))
    for change in changed:
        log.info(
            "Changed for the rest of the run: %s", "{key} {before} -> {after}".format(**change)
        )


def _check_change(change: Mapping[str, Any], allowed: bool) -> None:
    key, typed = change["key"], _typed(change["key"])
    if kind(key) == "fixed":
        raise UserError(
            f"{key} was {change['before']} when this run began and cannot become "
            f"{change['after']}.",
            f"Leave {typed} out of the command, or start a new run without resume.",
        )
    if not allowed:
        raise UserError(
            f"{key} was {change['before']} when this run began; {change['after']} changes the "
            "training.",
            f"Leave {typed} out of the command, or add resume_changes=true, which is recorded in "
            "results.json.",
        )


def _holds_training(stored: Mapping[str, Any]) -> bool:
    try:
        TypeAdapter(_State).validate_python(stored)
        loop = stored["loops"]["fit_loop"]
        progress = {key: loop[key] for key in loop if key.endswith("progress")}
        TypeAdapter(dict[str, _Counts]).validate_python(progress)
        return {"ready", "processed"} <= set(loop["epoch_progress"]["current"])
    except (ValidationError, LookupError, TypeError):
        return False


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
