"""Measuring a checkpoint on its own data or on others, from the file alone."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf

from src import checkpoint as ckpt
from src.build import make, resolve_paths
from src.datamodules import ImageDataModule
from src.errors import UserError
from src.run_folder import RunFolder, command_line, per_class, table
from src.tasks import ClassificationTask
from src.training import facts, quieten

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate `cfg.ckpt` and write `results.json`, `per_class.csv` and what ran into `folder`.

    Returns:
        The figures of the split: loss, acc, acc_balanced, and acc_top5 with more than five classes.
    """
    quieten()
    resolve_paths(cfg)
    run = RunFolder(folder)
    run.start(OmegaConf.to_container(cfg, resolve=True), command_line())
    try:
        return _evaluate(cfg, run)
    except BaseException as error:
        run.fail(f"{type(error).__name__}: {error}")
        raise


def _evaluate(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    stored = ckpt.read(cfg.ckpt)
    task = rebuild_task(stored)
    data = rebuild_data(stored, cfg.data)
    if list(data.classes) != task.classes:
        raise UserError(
            f"The data have the classes {', '.join(data.classes)}, the checkpoint {', '.join(task.classes)}.",
            "Evaluate on data with the same class names.",
        )
    if cfg.split not in (None, "val", "test"):
        raise UserError(f"split={cfg.split!r} is not known.", "Choose test or val.")
    split = cfg.split or ("test" if data.has_test else "val")
    config = stored["description"].get("config") or {}
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision or config.get("trainer", {}).get("precision", "32-true"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loop = {"test": trainer.test, "val": trainer.validate}[split]
    loop(task, data, verbose=False)
    check_split(stored, data)
    run.write_per_class(split, task.classes, task.confusion[split])
    rows = per_class(task.classes, task.confusion[split])
    figures = task.figures[split]
    run.note(data=facts(data))
    run.finish(
        {
            "status": "completed",
            "checkpoint": str(Path(cfg.ckpt).absolute()),
            split: {**figures, "per_class": {row["class"]: row["recall"] for row in rows}},
        }
    )
    log.info("%s", table(rows))
    log.info("%s accuracy %.4f, %s loss %.4f\n%s", split, figures["acc"], split, figures["loss"], run.path)
    return figures


def rebuild_task(stored: Mapping[str, Any]) -> ClassificationTask:
    """The task of a checkpoint, with its weights, ready to be evaluated."""
    description = stored["description"]
    layout = (description.get("config") or {}).get("task", {}).get("channels_last")
    return ClassificationTask(
        ckpt.network(stored),
        classes=description["classes"],
        mean=description["mean"],
        std=description["std"],
        channels_last=layout,
    )


def rebuild_data(stored: Mapping[str, Any], changes: DictConfig) -> ImageDataModule:
    """The data set of a checkpoint with some choices changed, or another one composed on the command line."""
    description = stored["description"]
    own = (description.get("config") or {}).get("data")
    given = {key: value for key, value in OmegaConf.to_container(changes, resolve=True).items() if value is not None}
    if "_target_" in given:
        shown = {"image_size": description["image_size"], "channels": description["channels"]}
        if "resize" in given:
            shown["resize"] = description["resize"]
        return make("data", OmegaConf.create({**given, **shown, "augment": None}))  # shown as in training
    if own is None:
        raise UserError(
            "This checkpoint was written by a task composed by hand: it does not say which data it was trained on.",
            "Name them: data=image_folder data.root=...",
        )
    own = {key: value for key, value in own.items() if key != "augment"}
    return ckpt.construct(own, "datamodules", ImageDataModule, **given)


def check_split(stored: Mapping[str, Any], data: ImageDataModule) -> None:
    """Say so when validation is no longer the split that the network was trained beside."""
    trained = stored["description"].get("data") or {}
    if trained.get("fingerprint") == data.fingerprint() and trained.get("split_hash") != data.split_hash():
        log.warning("The split into train and validation differs from the one of the training: val figures do not compare.")
