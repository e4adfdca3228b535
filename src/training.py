"""One run from the first step to the last line: fit, test the best checkpoint once, leave a complete folder."""

import logging
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from src import checkpoint as ckpt
from src.build import build, build_trainer, resolve_paths
from src.callbacks import Progress
from src.datamodules import ImageDataModule
from src.errors import UserError
from src.findings import by_class, figures, write_findings
from src.loggers import EpochTable
from src.report import write_report
from src.run_folder import RunFolder, command_line, per_class, table
from src.tasks import ClassificationTask
from src.tasks.classification import LENGTHS

log = logging.getLogger(__name__)


def train(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Train as `cfg` says and write the run into `folder`.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: whatever a person can put right; the folder says `failed` and why.
    """
    quieten()
    resolve_paths(cfg)
    first = is_first_process()
    if not first:
        logging.getLogger("src").setLevel(logging.ERROR)  # one process speaks for all
    run = RunFolder(folder, active=first)
    run.start(OmegaConf.to_container(cfg, resolve=True), command_line())
    try:
        return _train(cfg, run)
    except BaseException as error:
        kind = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        run.fail(f"{type(error).__name__}: {error}", kind, seed=cfg.seed)
        if first:
            write_report(run.path)
        raise


def _train(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data, task = build(cfg)
    trainer = build_trainer(cfg, run.path)
    if trainer.strategy.root_device.type == "cpu":
        # Lightning sets this to 1; every optimizer step then looks for NVIDIA's library anew where there is none.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    data.trainer = trainer  # for choices that hang on the device
    trainer.strategy.connect(task)
    data.prepare_data()
    data.setup("fit")
    parameters = sum(p.numel() for p in task.model.parameters())
    task.description["data"] = facts(data)
    run.note(data=task.description["data"], num_parameters=parameters, precision=str(trainer.precision), processes=trainer.world_size)
    sizes = ", ".join(f"{count:,} {split}" for split, count in data.sizes().items())
    log.info("%s on %s: %s parameters; %s pictures", *_names(task, data), f"{parameters:,}", sizes)

    if cfg.resume:
        _check_resumed(cfg, trainer)
    with onednn(cfg, trainer, data, task, parameters):
        trainer.fit(task, data, ckpt_path=cfg.resume, weights_only=True)

    run.note(automatic=task.automatic)
    best, last = _checkpoint(trainer, "best"), _checkpoint(trainer, "last")
    checkpoint = best.best_model_path or last.best_model_path
    # Under several processes one of them could see another's half-written file; Lightning's barrier comes with validate and test.
    trainer.validate(task, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    tested = bool(cfg.test) and data.has_test
    if tested:
        trainer.test(task, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    results = summarise(cfg, trainer, task, checkpoint, tested)
    split = "test" if tested else "val"
    write_findings(run, task, data, split)
    run.finish(results)
    if run.active:
        write_report(run.path, " on ".join(_names(task, data)), task, data, split)
    log.info("%s", table(per_class(task.classes, task.confusion[split])))
    log.info("%s", _closing_line(results, run.path))
    return results


def onednn(cfg: DictConfig, trainer: L.Trainer, data: ImageDataModule, task: ClassificationTask, parameters: int) -> AbstractContextManager:
    """Train without oneDNN where its set-up costs more than the arithmetic: LeNet on four pictures of 28x28 runs 1.5 times as fast.

    The bounds are tight because without it larger work is up to three times slower; `benchmarks/README.md` has the figures.
    """
    enabled = cfg.onednn
    if enabled is None:
        tiny = parameters < 100_000 and data.batch_size * data.image_size**2 <= 4 * 32**2
        enabled = not (tiny and trainer.strategy.root_device.type == "cpu")
        task.automatic["onednn"] = enabled
        if not enabled and task.channels_last is None:
            task.channels_last = task.automatic["channels_last"] = False  # that layout is oneDNN's
    return torch.backends.mkldnn.flags(enabled=enabled)


def _check_resumed(cfg: DictConfig, trainer: L.Trainer) -> None:
    """Drop what the resumed run repeats from its table, and refuse to stretch a schedule that was laid out for another length."""
    stored = ckpt.read(cfg.resume)
    before = ((stored["description"].get("config") or {}).get("trainer") or {}).get("max_epochs")
    if before not in (None, cfg.trainer.max_epochs) and any(name in cfg.scheduler for name in LENGTHS):
        raise UserError(
            f"The schedule of this run was laid out for {before} epochs and cannot be stretched to {cfg.trainer.max_epochs}.",
            f"Resume with trainer.max_epochs={before}, or start a new run.",
        )
    unfinished = stored["epoch_sums"]["count"] > 0 or stored["epoch_sums"]["epoch"][2] > 0
    for logger in trainer.loggers:
        if isinstance(logger, EpochTable):
            logger.forget_from(stored["epoch"] + (0 if unfinished else 1))


def summarise(cfg: DictConfig, trainer: L.Trainer, task: ClassificationTask, checkpoint: str, tested: bool) -> dict[str, Any]:
    """The content of `results.json`."""
    progress = next(c for c in trainer.callbacks if isinstance(c, Progress))
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    results = {
        "status": "completed",
        "val": figures(task, "val"),
        "test": None,
        "best_epoch": stored["epoch"],
        "epochs": trainer.current_epoch,
        "seed": cfg.seed,
        "train_seconds": round(progress.train_seconds, 3),
        "images_per_second": round(progress.images / max(progress.trained_seconds, 1e-9), 1),
        "num_parameters": sum(p.numel() for p in task.model.parameters()),
        "checkpoint": str(Path("checkpoints") / Path(checkpoint).name),
    }
    if tested:
        results["test"] = figures(task, "test") | by_class(task, "test")
    return results


def facts(data: ImageDataModule) -> dict[str, Any]:
    """What `run.json` says of the data: enough to tell later whether they are the same."""
    return {
        "sizes": data.sizes(),
        "classes": len(data.classes),
        "fingerprint": data.fingerprint(),
        "split_hash": data.split_hash(),
    }


def _names(task: ClassificationTask, data: ImageDataModule) -> tuple[str, str]:
    return type(task.model).__name__, type(data).__name__.removesuffix("DataModule")


def _checkpoint(trainer: L.Trainer, name: str) -> ModelCheckpoint:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.filename == name:
            return callback
    raise UserError(f"There is no callback that keeps {name}.ckpt.", f"Leave callbacks.{name} as conf/callbacks has it.")


def _closing_line(results: Mapping[str, Any], folder: Path) -> str:
    split = "test" if results["test"] else "val"
    figures = results[split]
    return (
        f"{split} accuracy {figures['acc']:.4f}, {split} loss {figures['loss']:.4f} (best of {results['epochs']} epochs: "
        f"epoch {results['best_epoch'] + 1}, chosen by val/loss {results['val']['loss']:.4f}) "
        f"after {results['train_seconds']:.0f} s of training\n{folder}"
    )


def is_first_process() -> bool:
    """Whether this process is the one that writes files: the launcher of several processes sets their ranks before they start."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return rank_zero_only.rank == 0


def quieten() -> None:
    """Silence what Lightning and torch say about things that are as they should be."""
    for text in (
        ".*does not have many workers.*",  # batches from memory need none
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*number of training batches .* is smaller than the logging interval.*",  # the last mark is logged at the epoch's end
        ".*available but not used.*",
        ".*recommended to use .*sync_dist=True.*",  # every process logs the same figures: torchmetrics has gathered them
        ".*TF32 acceleration on top of oneDNN.*",  # torch, about Intel's GPUs, when oneDNN's flags are touched
        ".*Found .* module\\(s\\) in eval mode at the start of training.*",  # frozen parts
    ):
        warnings.filterwarnings("ignore", message=text)
    for name in ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)


def objective(results: Mapping[str, Any]) -> float:
    """What a search minimises: the validation loss of the best checkpoint."""
    loss = results["val"]["loss"]
    return loss if math.isfinite(loss) else math.inf
