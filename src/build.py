"""From a composed config to objects: the only place, beside the entry points, that knows Hydra."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torchmetrics import Metric

from src.callbacks import Progress, StepSeed
from src.checkpoint import save, to_plain
from src.config_check import check, locate
from src.datamodules import ImageDataModule
from src.errors import UserError
from src.loggers import EpochTable
from src.run_folder import without_secrets
from src.tasks import ClassificationTask

TIMING = ("interval", "monitor")  # keys of a scheduler's YAML that Lightning needs, not the scheduler


def build(cfg: DictConfig) -> tuple[ImageDataModule, ClassificationTask]:
    """The data set and the task around the network, fitted to one another and to what is to be monitored.

    Raises:
        UserError: anything in the config that cannot be built, or parts that do not go together.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    check(plain)
    data = make("data", cfg.data)
    model, spec = build_network(cfg.model, data, resumed=bool(cfg.resume))
    timing = {key: cfg.scheduler[key] for key in TIMING if key in cfg.scheduler}
    scheduler = OmegaConf.create({key: cfg.scheduler[key] for key in cfg.scheduler if key not in TIMING})
    task = make(
        "task",
        cfg.task,
        model=model,
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        optimizer=factory("optimizer", cfg.optimizer),
        scheduler=factory("scheduler", scheduler),
        metrics=build_metrics(cfg, len(data.classes)),
        description={
            "model": spec,
            "image_size": data.image_size,
            "resize": getattr(data, "resize", "stretch"),
            "config": without_secrets(to_plain(plain)),
        },
        **timing,
    )
    metrics = task.metric_names - ({"train/acc"} if data.mixup or data.cutmix else set())  # their labels are shares of classes
    for group, node in {"scheduler": cfg.scheduler, **{f"callbacks.{name}": node for name, node in cfg.callbacks.items()}}.items():
        if node is not None and node.get("enabled", True) and node.get("monitor", "val/loss") not in metrics:
            raise UserError(f"{group}.monitor={node.monitor} is no metric of this run.", f"Choose one of {', '.join(sorted(metrics))}.")
    if sum(bool(node and node.get("enabled", True)) for node in (cfg.callbacks.get("ema"), cfg.callbacks.get("swa"))) == 2:
        raise UserError("callbacks.ema and callbacks.swa both average the weights, and one would undo the other.", "Choose one of them.")
    task.try_settings()
    return data, task


def settle(cfg: DictConfig) -> None:
    """Carry what trained weights expect (size, colours, mean and std of their pictures) into the settings of the data.

    What was typed stands: only keys that are null are filled in. From here on the config says what is used.

    Raises:
        UserError: a network or weights that do not exist.
    """
    if not (cfg.get("model") or {}).get("weights"):
        return
    expects = getattr(locate("model", cfg.model._target_), "pretrained_input", None)
    if expects is None:
        return
    with _two_lines("model"):
        facts = expects(**{name: cfg.model[name] for name in inspect.signature(expects).parameters})
    if cfg.data.get("channels") not in (None, facts["channels"]):
        facts = {key: value for key, value in facts.items() if key == "image_size"}
    for key, value in facts.items():
        if cfg.data.get(key) is None:
            cfg.data[key] = value


def build_network(cfg: DictConfig, data: ImageDataModule, resumed: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """The network for a data set, tried on an empty picture, and the plain facts from which it can be built again.

    A resumed run gets its weights from the checkpoint, so nothing is fetched for it.
    """
    facts = {"in_channels": data.channels, "num_classes": len(data.classes)}
    if "image_size" in inspect.signature(locate("model", cfg._target_)).parameters:
        facts["image_size"] = data.image_size
    made_of = {"weights": None} if resumed and "weights" in cfg else {}
    paper = _on_paper(cfg, facts)
    if paper is not None:  # told without drawing the weights, of which VGG has 138 million
        _check_size(paper, data, "meta")
    model = make("model", cfg, **facts, **made_of)
    _check_size(model, data)
    return model, to_plain(OmegaConf.to_container(cfg, resolve=True)) | facts


def build_metrics(cfg: DictConfig, num_classes: int) -> dict[str, Metric]:
    """What the group `metrics` names, by name."""
    return {str(name): make(f"metrics.{name}", node, num_classes=num_classes) for name, node in (cfg.get("metrics") or {}).items()}


def _on_paper(cfg: DictConfig, facts: Mapping[str, Any]) -> nn.Module | None:
    """The network without its weights; None where it cannot be built so, for whatever reason: the real one tells it then."""
    try:
        with torch.device("meta"):
            return make("model", cfg, **facts, **({"weights": None} if "weights" in cfg else {}))
    except Exception:
        return None


def _check_size(model: nn.Module, data: ImageDataModule, device: str = "cpu") -> None:
    size = data.image_size
    if not size or _takes(model, data.channels, size, device):
        return
    fitting = next((s for s in (32, 64, 96, 128, 224, 299) if s > size and _takes(model, data.channels, s, device)), None)
    raise UserError(
        f"{type(model).__name__} cannot take pictures of {data.channels}x{size}x{size}.",
        f"Add data.image_size={fitting}" if fitting else "Choose another model or another data.image_size.",
    )


def _takes(model: nn.Module, channels: int, size: int, device: str) -> bool:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, channels, size, size, device=device))
    except (NotImplementedError, TypeError):
        if device != "meta":
            raise
        return True  # what needs numbers cannot be tried on paper
    except (RuntimeError, ValueError, AssertionError) as error:  # torchvision's transformers assert their size
        return device == "meta" and ("meta" in str(error) or "device" in str(error))  # nor can what mixes paper with tensors of its own
    finally:
        model.train(training)
    return True


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to checkpoint files, with `src.checkpoint.save` as its pen."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        save(checkpoint, path)


def build_trainer(cfg: DictConfig, folder: Path, *callbacks: L.Callback) -> L.Trainer:
    """The trainer with callbacks and loggers that write into `folder`; `callbacks` come behind those of the config."""
    table = EpochTable(folder, cfg.trainer.max_epochs, resumed=bool(cfg.resume))
    listed: list[L.Callback] = [StepSeed(cfg.seed), Progress(), table]
    for name, node in cfg.callbacks.items():
        if node is None:
            continue
        node = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
        if node.pop("enabled", True):
            if "dirpath" in node and node.dirpath is None:
                node.dirpath = str(folder / "checkpoints")
            listed.append(make(f"callbacks.{name}", node))
    loggers = [table]
    loggers += [make(f"logger.{name}", node, save_dir=str(folder)) for name, node in (cfg.get("logger") or {}).items()]
    trainer = make_trainer(cfg.trainer, callbacks=[*listed, *callbacks], logger=loggers, default_root_dir=str(folder))
    for name in ("best", "last"):
        checkpoint_callback(trainer, name)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # sharded strategies have their own
        trainer.strategy.checkpoint_io = CheckpointFiles()
    return trainer


def factory(group: str, node: DictConfig) -> Callable:
    """A config's target with its arguments, still to be called. A plain partial: Hydra's own checks its policy on every call."""
    with _two_lines(group):
        made = instantiate(node, _convert_="all", _partial_=True)
        return partial(made.func, *made.args, **made.keywords)


def make(group: str, node: DictConfig, **objects: Any) -> Any:
    """What a config's target makes of its arguments and of `objects`, which Hydra gets no chance to copy or to look into."""
    made = factory(group, node)
    with _two_lines(group):
        return made(**objects)


@contextmanager
def _two_lines(group: str) -> Iterator[None]:
    """A person's mistakes in a config group, told with what to do."""
    try:
        yield
    except (InstantiationException, TypeError, ValueError, OSError, ImportError, MisconfigurationException) as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        # A network knows no UserError: what to do stands in the second line of what it raises.
        problem, _, remedy = str(cause).partition("\n")
        remedy = remedy if isinstance(cause, OSError | ValueError | ImportError) and remedy else ""
        raise UserError(
            f"{group}: {problem or type(cause).__name__}",
            remedy or f"Check the keys under {group} (python train.py --cfg job shows them).",
        ) from cause


def complete(cfg: DictConfig) -> None:
    """What every composed run needs before it is written down or built: absolute paths, and what its trained weights expect."""
    resolve_paths(cfg)
    settle(cfg)


def make_trainer(node: DictConfig, **objects: Any) -> L.Trainer:
    """Lightning's trainer, with its errors told in two lines."""
    try:
        trainer = make("trainer", node, **objects)
    except UserError as error:
        if node.accelerator in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
            raise UserError(
                f"trainer.accelerator={node.accelerator}, but torch {torch.__version__} finds no GPU on this machine.",
                "Leave the key out to take what there is, or set trainer.accelerator=cpu.",
            ) from None
        raise error
    if str(node.precision) in ("16", "16-mixed") and "bf16" in str(trainer.precision):
        raise UserError(
            "trainer.precision=16-mixed needs a GPU; Lightning would silently compute in bfloat16 on this CPU.",
            "Set trainer.precision=bf16-mixed, or 32-true.",
        )
    return trainer


def checkpoint_callback(trainer: L.Trainer, name: str) -> ModelCheckpoint:
    """The callback that keeps best.ckpt or last.ckpt.

    Raises:
        UserError: there is none.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.filename == name:
            return callback
    raise UserError(f"There is no callback that keeps {name}.ckpt.", f"Leave callbacks.{name} as conf/callbacks has it.")


def resolve_paths(cfg: DictConfig) -> None:
    """Make paths absolute, as seen from where the command was typed."""
    for key in ("root", "cache_dir"):
        if cfg.data.get(key):
            cfg.data[key] = os.path.abspath(os.path.expanduser(cfg.data[key]))
    weights = cfg.model.get("weights") if "model" in cfg else None
    if isinstance(weights, str) and os.path.isfile(os.path.expanduser(weights)):
        cfg.model.weights = os.path.abspath(os.path.expanduser(weights))
