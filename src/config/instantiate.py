"""From a composed config to the objects of a run, one function for each of them."""

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn
from torchmetrics import Metric

from ..errors import UserError
from ..loggers.profiler import CompactProfiler
from ..runs.checkpoint import to_plain
from ..runs.checkpoint_io import AtomicCheckpointIO
from .code_checks import check_callbacks, check_registered, warn_of_unknown_hooks
from .factory import call, partial_instantiate
from .layers import location
from .plain import plain_config, resolved
from .settings import is_enabled
from .trial import (
    check_model,
    check_monitors,
    check_signature,
    try_loss,
    try_on_meta,
    try_optimizer,
)
from .validate import locate, parameters
from .warning_filters import silence_warnings

log = logging.getLogger(__name__)

CHOSEN = ("model", "optimizer", "scheduler", "metrics")  # groups that a task may not take
TIMING = ("interval", "monitor")  # keys of a scheduler that are arguments of the task


def instantiate_datamodule(cfg: DictConfig) -> L.LightningDataModule:
    """The data, of which nothing is read yet.

    Raises:
        UserError: settings that they refuse, or a class that does not initialize its base class.
    """
    datamodule = call("data", resolved(cfg.data))
    if not hasattr(datamodule, "prepare_data_per_node"):
        raise UserError(
            f"{location(type(datamodule))}: __init__ does not call super().__init__().",
            "Add it as the first line, with the arguments that are not your own.",
        )
    return datamodule


def instantiate_model(cfg: DictConfig, datamodule: Any) -> nn.Module | None:
    """The network for a data set, after a trial with two empty images; None if no task needs it.

    A resumed run has its weights in the checkpoint, so none are read or downloaded for it.

    Raises:
        UserError: settings that the network refuses, or a network that does not fit the data.
        Exception: whatever its own code raises.
    """
    known, open_ended = parameters(locate("task", cfg.task._target_))
    if not cfg.get("model") or not ("model" in known or open_ended):
        return None
    node = resolved(cfg.model)
    facts = _input_facts(node, datamodule)
    check_signature(locate("model", node["_target_"]), node, facts)
    without_weights = {"weights": None} if "weights" in node else {}
    build = partial(call, "model", node, **facts)
    size = getattr(datamodule, "image_size", None)
    images: tuple[int, int, int] | None = None  # of a trial
    if size and {"in_channels", "num_classes"} <= set(facts):
        images = (facts["in_channels"], size, facts["num_classes"])
    tried = images is None or try_on_meta(partial(build, **without_weights), *images)
    model = build(**(without_weights if cfg.get("resume") else {}))
    check_registered(model)
    if images is not None and not tried:
        check_model(model, *images)
    return model


def _input_facts(model: Mapping[str, Any], datamodule: Any) -> dict[str, Any]:
    """The network's arguments that follow from the data, as far as the data have them."""
    facts: dict[str, Any] = {}
    if hasattr(datamodule, "channels"):
        facts["in_channels"] = datamodule.channels
    if hasattr(datamodule, "classes"):
        facts["num_classes"] = len(datamodule.classes)
    known, _ = parameters(locate("model", model["_target_"]))
    if "image_size" in known and hasattr(datamodule, "image_size"):
        facts["image_size"] = datamodule.image_size
    return facts


def instantiate_task(
    cfg: DictConfig, model: nn.Module | None, datamodule: Any
) -> L.LightningModule:
    """The task around a network. It gets the arguments that its signature names.

    Raises:
        UserError: settings of the task, the loss, the optimizer or the scheduler that are refused;
            a monitor that is not a metric of the task.
    """
    scheduler = resolved(cfg.get("scheduler")) or {}
    schedule = {key: value for key, value in scheduler.items() if key not in TIMING}
    optimizer = resolved(cfg.get("optimizer"))
    offered = {
        "model": model,
        "optimizer": partial_instantiate("optimizer", optimizer) if optimizer else None,
        "scheduler": partial_instantiate("scheduler", schedule) if schedule else None,
        "description": _describe(cfg, datamodule),
        **{key: scheduler[key] for key in TIMING if key in scheduler},
        **{key: getattr(datamodule, key) for key in ("mean", "std") if hasattr(datamodule, key)},
    }
    if hasattr(datamodule, "classes"):
        offered["classes"] = datamodule.classes
        offered["metrics"] = instantiate_metrics(cfg, len(datamodule.classes))
    known, open_ended = parameters(locate("task", cfg.task._target_))
    accepted = {key: value for key, value in offered.items() if open_ended or key in known}
    unused = [name for name in CHOSEN if cfg.get(name) and name not in accepted]
    if unused:
        name = cfg.task._target_.rpartition(".")[2]
        log.info("%s does not take %s: these settings have no effect.", name, ", ".join(unused))
    task = call("task", resolved(cfg.task), **accepted)
    warn_of_unknown_hooks(task, L.LightningModule)
    check_monitors(cfg, task, datamodule)
    try_optimizer(accepted.get("optimizer"), accepted.get("scheduler"))
    if "loss" in cfg.task and hasattr(datamodule, "classes"):
        try_loss(task.loss, datamodule)
    return task


def _describe(cfg: DictConfig, datamodule: Any) -> dict[str, Any]:
    """What checkpoints say about network and input, in plain types."""
    config = plain_config(cfg)
    model = config.get("model")
    return {
        "model": to_plain(model | _input_facts(model, datamodule)) if model else None,
        "image_size": getattr(datamodule, "image_size", None),
        "resize": getattr(datamodule, "resize", "stretch"),
        "config": config,
    }


def instantiate_metrics(cfg: DictConfig, num_classes: int) -> dict[str, Metric]:
    """The extra metrics, by name."""
    nodes = resolved(cfg.get("metrics")) or {}
    return {
        str(name): _build_metric(f"metrics.{name}", node, num_classes)
        for name, node in nodes.items()
    }


def _build_metric(path: str, node: Mapping[str, Any], num_classes: int) -> Metric:
    """A metric, with the number of classes if it takes one."""
    target = locate(path, node["_target_"])
    known, _ = parameters(target)
    takes_it = "num_classes" in {*known, *inspect.signature(target).parameters}  # of `__new__` too
    return call(path, node, **({"num_classes": num_classes} if takes_it else {}))


def instantiate_callbacks(cfg: DictConfig, run_dir: Path) -> list[L.Callback]:
    """The enabled callbacks, in the order of the config."""
    callbacks = []
    for name, node in (resolved(cfg.get("callbacks")) or {}).items():
        if not is_enabled(node):
            continue
        node.pop("enabled", None)
        if "dirpath" in node and node["dirpath"] is None:
            node["dirpath"] = str(run_dir / "checkpoints")
        callbacks.append(_call_with_run(f"callbacks.{name}", node, cfg, run_dir))
    return check_callbacks(callbacks)


def instantiate_loggers(cfg: DictConfig, run_dir: Path) -> list[Logger]:
    """The loggers, which write into the run folder."""
    nodes = (resolved(cfg.get("logger")) or {}).items()
    return [_call_with_run(f"logger.{name}", node, cfg, run_dir) for name, node in nodes if node]


def _call_with_run(path: str, node: dict[str, Any], cfg: DictConfig, run_dir: Path) -> Any:
    """Call a target with the run folder and the config, where its signature names them."""
    known, _ = parameters(locate(path, node["_target_"]))
    offered: dict[str, Any] = {"run_dir": run_dir, "save_dir": str(run_dir)}
    if "config" in known:
        offered["config"] = plain_config(cfg)
    missing = {key: offered[key] for key in offered if key in known and node.get(key) is None}
    return call(path, node, **missing)


def instantiate_trainer(
    cfg: DictConfig,
    run_dir: Path,
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
) -> L.Trainer:
    """Lightning's trainer. Its checkpoints are written atomically, unless the strategy has a way
    of its own.

    Raises:
        UserError: settings that Lightning refuses, or devices that are not there.
    """
    silence_warnings()
    node = resolved(cfg.trainer)
    saves = any(isinstance(callback, Checkpoint) for callback in callbacks)
    objects = {
        "callbacks": list(callbacks),
        "logger": list(loggers) or False,
        "default_root_dir": str(run_dir),
        "enable_checkpointing": node.get("enable_checkpointing", saves),
    }
    if node.get("accelerator") in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise UserError(
            f"trainer.accelerator={node['accelerator']}, but torch finds no GPU.",
            "Leave the key out to use what there is, or set trainer.accelerator=cpu.",
        )
    if node.get("profiler") == "simple":
        objects["profiler"] = CompactProfiler()
    trainer = call("trainer", node, **objects)
    if trainer.overfit_batches:
        trainer.limit_val_batches = 0  # Lightning has set it to as many batches of other images
    if str(node.get("precision")) in ("16", "16-mixed") and "bf16" in str(trainer.precision):
        raise UserError(
            "trainer.precision=16-mixed needs a GPU; on this CPU Lightning computes in bfloat16.",
            "Set trainer.precision=bf16-mixed, or 32-true.",
        )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    if trainer.strategy.root_device.type == "cpu":
        # Lightning sets 1, with which every optimizer step looks for NVIDIA's library anew.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return trainer
