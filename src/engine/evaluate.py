"""Evaluating checkpoints and exported networks on their own or other data, from files alone."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from ..callbacks.run_description import describe_data, run_title
from ..config.instantiate import (
    instantiate_callbacks,
    instantiate_metrics,
    instantiate_trainer,
)
from ..config.plain import plain_config, resolved
from ..config.prepare import prepare_config
from ..datamodules import ImageDataModule, ImageFolderDataModule
from ..errors import UserError
from ..reporting.analysis import (
    class_metrics,
    log_classes,
    summary_metrics,
    write_tables,
)
from ..reporting.html import write_report
from ..runs import RunFolder, checkpoint
from ..runs.environment import command_line
from ..tasks import ClassificationTask
from .calibrate import calibrate
from .exported import read_exported
from .predict import choose_device
from .rebuild import Checkpoint, checkpoint_files, rebuild_datamodule, rebuild_task

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate `cfg.ckpt` and write results, tables, plots and `report.html` into `folder`.

    Args:
        cfg: the composed configuration, see conf/evaluate.yaml.
        folder: the run folder.

    Returns:
        The metrics of the split, as in `results.json`.

    Raises:
        UserError: a checkpoint, data or a setting that cannot work; `folder` records it.
    """
    prepare_config(cfg)
    run = RunFolder(folder)
    run.start(plain_config(cfg), command_line())
    try:
        return _evaluate(cfg, run)
    except BaseException as error:
        run.record_failure(error)
        raise


def _evaluate(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    if cfg.tta not in (None, "flip") or cfg.split not in (None, "val", "test"):
        raise UserError(
            f"tta={cfg.tta} with split={cfg.split} is unknown.",
            "Choose tta=flip or leave it out, and split=test or split=val.",
        )
    paths = checkpoint_files(cfg.ckpt)
    checkpoints, task, metrics = _read_networks(cfg, paths)
    changes = {key: value for key, value in resolved(cfg.data).items() if value is not None}
    datamodule = rebuild_datamodule(checkpoints[0], changes)
    datamodule.remap_labels(task.classes)
    measured: dict[str, Any] = {}
    if cfg.calibrate:
        measured = {"calibration": _calibrate(cfg, paths, checkpoints[0], datamodule)}
        checkpoints, task, metrics = _read_networks(cfg, paths)
    split = cfg.split or ("test" if datamodule.has_test else "val")
    for stored in checkpoints:
        _check_not_fitted(stored, datamodule, split)
    trainer = _build_trainer(cfg, checkpoints[0], run.path)

    run_pass = trainer.test if split == "test" else trainer.validate
    run_pass(task, datamodule=datamodule, verbose=False)
    if split == "val" and not all(_same_split(stored, datamodule) for stored in checkpoints):
        log.warning(
            "The split into train and validation differs from that of the training: val metrics "
            "cannot be compared."
        )
    if isinstance(datamodule, ImageFolderDataModule) and datamodule.whole:
        _log_folder(datamodule, split)
    evaluation = task.evaluations[split]
    results = summary_metrics(evaluation) | class_metrics(task.classes, evaluation.confusion)
    write_tables(run, split, task.classes, evaluation, partial(datamodule.names, split))
    run.note(data=describe_data(trainer))
    files = [str(path.absolute()) for path in paths]
    evaluated = files[0] if len(files) == 1 else files
    run.finish({"status": "completed", "checkpoint": evaluated, split: results} | measured)
    title = f"Evaluation of {run_title(trainer, task)}"
    write_report(run.path, title, task, datamodule, split, show_samples=False)
    log_classes(split, task.classes, evaluation)
    _log_results(results, split, list(metrics))
    log.info("%s", run.path)
    return results


def _read_networks(
    cfg: DictConfig, paths: Sequence[Path]
) -> tuple[list[Checkpoint], ClassificationTask, dict[str, Metric]]:
    """Return checkpoints, their task and the extra metrics; an ONNX file counts as a checkpoint."""
    if not any(path.suffix == ".onnx" for path in paths):
        checkpoints: list[Checkpoint] = [checkpoint.read(path) for path in paths]
        metrics = instantiate_metrics(cfg, len(checkpoints[0]["description"]["classes"]))
        return checkpoints, rebuild_task(paths, checkpoints, cfg.tta == "flip", metrics), metrics
    if len(paths) > 1 or cfg.tta is not None or cfg.trainer.precision is not None:
        raise UserError(
            "An exported network is evaluated alone, as it is.",
            "Give one .onnx file, without tta= and trainer.precision=.",
        )
    if cfg.data.get("_target_") is None:
        raise UserError(
            f"{paths[0]} does not name its data.",
            "Name the data: data=image_folder data.root=...",
        )
    network, description = read_exported(paths[0])
    metrics = instantiate_metrics(cfg, len(description["classes"]))
    channels = description["channels"]
    mean, std = [0.0] * channels, [1.0] * channels  # the graph normalizes
    task = ClassificationTask(network, description["classes"], mean, std, metrics=metrics)
    return [{"description": description}], task, metrics


def _calibrate(
    cfg: DictConfig, paths: Sequence[Path], stored: Checkpoint, datamodule: ImageDataModule
) -> dict[str, Any]:
    """Calibrate a checkpoint on the validation images of its training."""
    if len(paths) > 1 or paths[0].suffix == ".onnx" or cfg.tta is not None:
        raise UserError(
            "calibrate=true takes one checkpoint, without tta=.",
            "Calibrate each checkpoint by itself, then evaluate or export them.",
        )
    _check_not_fitted(stored, datamodule, "val")
    trained = stored["description"].get("data") or {}
    now = {"fingerprint": datamodule.fingerprint(), "split_hash": datamodule.split_hash()}
    if any(trained.get(key) != value for key, value in now.items()):
        raise UserError(
            "calibrate=true needs the data of the training, divided as they were then.",
            "Leave out data=, and give their folder with data.root=FOLDER.",
        )
    name = cfg.trainer.accelerator
    return calibrate(paths[0], datamodule, choose_device("auto" if name == "gpu" else name))


def _build_trainer(cfg: DictConfig, stored: Checkpoint, folder: Path) -> L.Trainer:
    trained = (stored["description"].get("config") or {}).get("trainer") or {}
    settings = {
        "_target_": "lightning.Trainer",
        "accelerator": cfg.trainer.accelerator,
        "precision": cfg.trainer.precision or trained.get("precision", "32-true"),
        "devices": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    callbacks = instantiate_callbacks(cfg, folder)
    return instantiate_trainer(OmegaConf.create({"trainer": settings}), folder, callbacks)


def _check_not_fitted(stored: Checkpoint, datamodule: ImageDataModule, split: str) -> None:
    """Refuse a split that the weights were fitted on; callbacks that do so describe it."""
    trained = stored["description"].get("data") or {}
    is_fitted = split in (stored["description"].get("fitted_on") or ())
    if is_fitted and trained.get("fingerprint") == datamodule.fingerprint():
        raise UserError(
            f"This network was fitted on the {split} images as well: their accuracy says nothing.",
            "Give other images with data.root=FOLDER; results.json of the run has the accuracy of "
            "cross-validation.",
        )


def _same_split(stored: Checkpoint, datamodule: ImageDataModule) -> bool:
    """Whether the validation images are those of the training, where the data are the same."""
    trained = stored["description"].get("data") or {}
    same_data = trained.get("fingerprint") == datamodule.fingerprint()
    return not same_data or trained.get("split_hash") == datamodule.split_hash()


def _log_folder(datamodule: ImageFolderDataModule, split: str) -> None:
    """Say which images of a folder that the network was not trained on are evaluated."""
    folder = datamodule.split_folder(split)
    if folder is None:
        log.warning(
            "split=%s takes a part of %s: leave it out to evaluate all of a folder that the "
            "network was not trained on.",
            *(split, datamodule.base),
        )
        return
    count = f"{datamodule.sizes()[split]:,}"
    log.info("Evaluated all %s images of %s: it is not the folder of the training.", count, folder)


def _log_results(results: Mapping[str, Any], split: str, extra: Sequence[str]) -> None:
    for pair in results["most_confused"][:3]:
        count, percent = f"{pair['count']:,}", 100 * pair["fraction"]
        log.info(
            "%s predicted as %s: %s (%.1f %%)", pair["true"], pair["predicted"], count, percent
        )
    low, high = results["acc_low"], results["acc_high"]
    parts = [f"{split} accuracy {results['acc']:.4f} (95 %: {low:.4f} to {high:.4f})"]
    parts += [f"{split} {name} {results[name]:.4f}" for name in (*extra, "loss")]
    parts.append(f"calibration error {results['ece']:.4f}")
    log.info("%s", ", ".join(parts))
