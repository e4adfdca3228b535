"""Predicting the classes of any number of image files with a checkpoint."""

import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from ..config.instantiate import plain_config
from ..errors import UserError
from ..inference.classifier import Classifier, load
from ..reporting.grad_cam import grad_cam, overlay
from ..reporting.text import render_table
from ..runs.environment import command_line
from ..runs.run_folder import RunFolder
from .prediction_files import (
    DecodedBatch,
    ImageFiles,
    PredictionWriter,
    Ranking,
    batches,
    count_files,
    find_files,
)

log = logging.getLogger(__name__)
SHOWN = 20  # rows of a table on the console; the files hold all
MAX_WORKERS = 8


def predict(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Predict the classes of all images that `cfg.path` stands for.

    Writes into `folder`, batch by batch: `predictions.csv`, `predictions.jsonl` (one JSON object a
    line), `unreadable.csv` where files cannot be read, and `cam/` with `cam=true`; at the end
    `results.json`.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: no usable checkpoint, no images, or a setting that cannot work.
    """
    _check_settings(cfg)
    total, skipped = count_files(str(cfg.path))
    device = choose_device(cfg.device)
    classifier = load(cfg.ckpt).to(device)
    run = RunFolder(folder)
    run.start(plain_config(cfg), command_line())
    try:
        summary = _predict_files(cfg, classifier, total, run.path)
    except BaseException as error:
        run.record_failure(error)
        raise
    results = {
        "status": "completed",
        "checkpoint": os.path.abspath(cfg.ckpt),
        "predictions": summary.counts.total(),
        "unreadable": summary.num_unreadable,
        "classes": dict(summary.counts.most_common()),
    }
    run.finish(results)
    summary.log()
    if skipped:
        log.info("Skipped %s files without the extension of an image", f"{skipped:,}")
    log.info("%s", run.path)
    return results


def _check_settings(cfg: DictConfig) -> None:
    for name, least in (("top_k", 1), ("batch_size", 1), ("num_workers", 0)):
        value = cfg[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise UserError(
                f"{name}={value} is not possible.", f"Give {name} a whole number, at least {least}."
            )


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the GPU where there is one, else the CPU.

    Raises:
        UserError: the device is unknown, or this machine has none.
    """
    if name == "auto":
        is_available = torch.accelerator.is_available()
        accelerator = torch.accelerator.current_accelerator() if is_available else None
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the second where torch has no CUDA
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device={name} cannot be used: {reason}", "Choose auto, cpu, cuda or mps."
        ) from None


def _predict_files(
    cfg: DictConfig, classifier: Classifier, total: int, folder: Path
) -> "PredictionSummary":
    top_k = min(cfg.top_k, len(classifier.classes))
    summary = PredictionSummary(str(cfg.path), top_k)
    shutil.rmtree(folder / "cam", ignore_errors=True)  # of an earlier prediction into this folder
    with PredictionWriter(folder, top_k) as writer, _progress_bar() as progress:
        bar = progress.add_task("", total=total)
        for batch in _build_loader(cfg, classifier, total):
            for file, reason in batch.failures:
                writer.unreadable(file, reason)
                summary.add_unreadable(file, reason)
            if batch.files:
                rankings, overlays = _predict_batch(classifier, batch, top_k, cfg.cam)
                paths = _save_overlays(overlays, batch.files, summary.counts.total(), folder)
                for file, ranking, path in zip(batch.files, rankings, paths, strict=True):
                    writer.prediction(file, ranking, path)
                    summary.add_prediction(file, ranking)
            progress.update(bar, advance=len(batch.files) + len(batch.failures), refresh=True)
    return summary


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.completed:,} of {task.total:,} files"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # no thread: the workers of the loader are forked
        disable=not sys.stderr.isatty(),
    )


def _build_loader(cfg: DictConfig, classifier: Classifier, total: int) -> DataLoader:
    num_workers = cfg.num_workers
    if num_workers is None:
        is_small = total <= 4 * cfg.batch_size
        num_workers = 0 if is_small else min(os.cpu_count() or 1, MAX_WORKERS)
    wanted_files = (file for file, wanted in find_files(str(cfg.path)) if wanted)
    return DataLoader(
        ImageFiles(classifier, with_views=cfg.cam),
        sampler=batches(wanted_files, cfg.batch_size),
        batch_size=None,  # the sampler yields whole batches
        num_workers=num_workers,
        pin_memory=classifier.mean.device.type == "cuda",
    )


def _predict_batch(
    classifier: Classifier, batch: DecodedBatch, top_k: int, with_cam: bool
) -> tuple[list[Ranking], torch.Tensor | None]:
    """Return a ranking per image, and Grad-CAM overlays, uint8 (N, 3, H, W), if requested."""
    images = batch.images.to(classifier.mean.device, non_blocking=True)
    with torch.inference_mode():
        probabilities, indices = classifier(images).softmax(1).topk(top_k)
    rankings: list[Ranking] = [
        [(classifier.classes[index], value) for index, value in zip(*row, strict=True)]
        for row in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]
    if not with_cam:
        return rankings, None
    maps = grad_cam(classifier.model, classifier.normalize(images), indices[:, 0])
    return rankings, overlay(batch.views, maps.cpu())


def _save_overlays(
    overlays: torch.Tensor | None, files: Sequence[str], start: int, folder: Path
) -> list[str] | list[None]:
    """Write Grad-CAM overlays as numbered JPEG files; return their paths inside `folder`."""
    if overlays is None:
        return [None] * len(files)
    (folder / "cam").mkdir(exist_ok=True)
    paths = []
    for number, (image, file) in enumerate(zip(overlays, files, strict=True), start + 1):
        path = f"cam/{number:06d}_{Path(file).stem[:50]}.jpg"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / path, quality=90)
        paths.append(path)
    return paths


class PredictionSummary:
    """What the console shows of a prediction: the first rows and the counts.

    Args:
        path: the folder that was predicted; it is not repeated in each row.
        top_k: classes per image.
    """

    def __init__(self, path: str, top_k: int):
        self.prefix = os.path.join(os.path.expanduser(path), "")
        self.columns = ["file", "prediction", *(f"{rank}." for rank in range(2, top_k + 1))]
        self.counts: Counter[str] = Counter()  # images by predicted class
        self.num_unreadable = 0
        self.rows: list[list[str]] = []
        self.unreadable: list[list[str]] = []

    def add_prediction(self, file: str, ranking: Ranking) -> None:
        self.counts[ranking[0][0]] += 1
        if len(self.rows) < SHOWN:
            cells = [f"{name} {probability:.4f}" for name, probability in ranking]
            self.rows.append([file.removeprefix(self.prefix), *cells])

    def add_unreadable(self, file: str, reason: str) -> None:
        self.num_unreadable += 1
        if len(self.unreadable) < SHOWN:
            self.unreadable.append([file.removeprefix(self.prefix), reason])

    def log(self) -> None:
        total = self.counts.total()
        if self.rows:
            log.info("%s", render_table(self.columns, self.rows))
            _log_rest(total, "predictions.csv")
        most_common = self.counts.most_common(10)
        classes = ", ".join(f"{name}: {count:,}" for name, count in most_common)
        if len(self.counts) > 10:
            classes += ", ..."
        log.info("Predicted %s%s", f"{total:,}", f" ({classes})" if classes else "")
        if self.unreadable:
            table = render_table(["file", "reason"], self.unreadable)
            log.info("Could not read %s:\n%s", f"{self.num_unreadable:,}", table)
            _log_rest(self.num_unreadable, "unreadable.csv")


def _log_rest(count: int, name: str) -> None:
    if count > SHOWN:
        log.info("... and %s more, in %s", f"{count - SHOWN:,}", name)
