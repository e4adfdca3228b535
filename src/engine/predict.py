"""Predicting the classes of any number of image files with a checkpoint."""

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from ..config.plain import plain_config
from ..datamodules.loader import raised
from ..errors import UserError
from ..inference.classifier import Classifier, batch_size, load
from ..reporting.grad_cam import grad_cam, overlay
from ..reporting.text import render_table
from ..runs import RunFolder, checkpoint
from ..runs.environment import command_line
from .answers import UNKNOWN, UNSURE, AnswerRule, SortedCopies, answer_rule
from .exported import ExportedClassifier, export_for_now, read_exported
from .prediction_files import (
    SHOWN,
    DecodedBatch,
    ImageFiles,
    PredictedFiles,
    Prediction,
    PredictionWriter,
    find_files,
)

log = logging.getLogger(__name__)
MAX_WORKERS = 8


def predict(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Predict the classes of all images that `cfg.path` stands for.

    Writes into `folder`, batch by batch: `predictions.csv`, `predictions.jsonl` (one JSON object a
    line), `unreadable.csv` where files cannot be read, and `cam/` with `cam=true`; at the end
    `results.json`. Tables end in `.part` until the prediction is complete.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: no usable checkpoint, no images, or a setting that cannot work.
    """
    for name, least in (("top_k", 1), ("batch_size", 1), ("num_workers", 0)):
        value = cfg[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise UserError(
                f"{name}={value} is not possible.", f"Give {name} a whole number, at least {least}."
            )
    files, skipped = find_files(str(cfg.path))
    classifier = _load(cfg)
    rule = answer_rule(cfg, classifier)
    if not rule.marks_unknown:
        classifier.known = None
    copies = SortedCopies(cfg.sort_to, [*classifier.classes, UNSURE, UNKNOWN])
    run = RunFolder(folder)
    run.start(plain_config(cfg), command_line())
    try:
        writer = _predict_files(cfg, classifier, files, run.path, rule, copies)
    except BaseException as error:
        run.record_failure(error)
        raise
    results = {
        "status": "completed",
        "checkpoint": os.path.abspath(checkpoint.find(cfg.ckpt)),
        "predictions": writer.counts.total(),
        "unreadable": writer.num_unreadable,
        "classes": dict(writer.counts.most_common()),
    }
    if rule.is_used:
        results |= {"threshold": rule.threshold, "answers": dict(writer.answers.most_common())}
    run.finish(results)
    log_predictions(str(cfg.path), writer)
    if skipped:
        log.info("Skipped %s files without the extension of an image", f"{skipped:,}")
    log.info("%s", run.path)
    return results


def _load(cfg: DictConfig) -> Classifier:
    """Return the network on its device; with `engine=onnx` that of an exported file.

    Raises:
        UserError: no usable checkpoint, or settings that an exported network does not have.
    """
    ckpt = checkpoint.find(cfg.ckpt)
    if cfg.engine not in ("torch", "onnx"):
        raise UserError(f"engine={cfg.engine} is unknown.", "Choose torch or onnx.")
    if cfg.engine == "torch" and ckpt.suffix != ".onnx":
        return load(ckpt).to(choose_device(cfg.device))
    if cfg.cam or cfg.device not in ("auto", "cpu"):
        raise UserError(
            "An exported network runs on the CPU and has no gradients.",
            "Leave device= and cam= out, or use the checkpoint with engine=torch.",
        )
    if ckpt.suffix == ".onnx":
        return ExportedClassifier(*read_exported(ckpt))
    return export_for_now(load(ckpt), ckpt)


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
    cfg: DictConfig,
    classifier: Classifier,
    files: Sequence[str],
    folder: Path,
    rule: AnswerRule,
    copies: SortedCopies,
) -> PredictionWriter:
    top_k = min(cfg.top_k, len(classifier.classes))
    shutil.rmtree(folder / "cam", ignore_errors=True)  # of an earlier prediction
    with PredictionWriter(folder, top_k, rule.is_used) as writer:
        for batch in _batches(cfg, classifier, files):
            predictions: list[Prediction] = []
            if batch.files:
                done = writer.counts.total()
                predictions = _predict_batch(classifier, batch, top_k, folder / "cam", done, rule)
            copies.copy(predictions)
            writer.write(predictions, batch.failures)
    return writer


def _batches(cfg: DictConfig, classifier: Classifier, files: Sequence[str]) -> Any:
    """Decode the files in batches, behind a progress bar."""
    device = classifier.mean.device
    size = cfg.batch_size or batch_size(classifier.image_size or 1, device)
    is_small = len(files) <= 4 * size
    # With views the network stays in this process, for its gradients.
    in_workers = cfg.num_workers is None and device.type == "cpu" and not (is_small or cfg.cam)
    num_workers = cfg.num_workers
    if in_workers:
        num_workers = torch.get_num_threads()
    elif num_workers is None:
        num_workers = 0 if is_small else min(os.cpu_count() or 1, MAX_WORKERS)
    starts = range(0, len(files), size)
    loader = DataLoader(
        PredictedFiles(classifier) if in_workers else ImageFiles(classifier, with_views=cfg.cam),
        sampler=[files[start : start + size] for start in starts],
        batch_size=None,  # the sampler has whole batches
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    return track(
        raised(loader),
        total=len(loader),
        description=f"{len(files):,} files",
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # no thread: the workers of the loader are forked
        disable=not sys.stderr.isatty(),
    )


def _predict_batch(
    classifier: Classifier,
    batch: DecodedBatch,
    top_k: int,
    folder: Path,
    done: int,
    rule: AnswerRule,
) -> list[Prediction]:
    """Predict a batch, after `done` files; with views, write Grad-CAM overlays into `folder`."""
    images = batch.images.to(classifier.mean.device, non_blocking=True)
    all_probabilities, all_distances = batch.probabilities, batch.distances
    if all_probabilities is None:
        with torch.inference_mode():
            all_probabilities, all_distances = classifier.measure(images)
    probabilities, indices = all_probabilities.topk(top_k)
    cams: list[str | None] = [None] * len(batch.files)
    if batch.views.numel():
        maps = grad_cam(classifier.model, classifier.normalize(images), indices[:, 0])
        folder.mkdir(exist_ok=True)
        for row, image in enumerate(overlay(batch.views, maps.cpu())):
            name = f"{done + row + 1:06d}_{Path(batch.files[row]).stem[:50]}.jpg"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name, quality=90)
            cams[row] = f"{folder.name}/{name}"
    rankings = [
        [(classifier.classes[index], value) for index, value in zip(*row, strict=True)]
        for row in zip(indices.tolist(), probabilities.tolist(), strict=True)
    ]
    distances = [None] * len(batch.files) if all_distances is None else all_distances.tolist()
    answers = [
        rule.answer(*row) if rule.is_used else None for row in zip(rankings, distances, strict=True)
    ]
    columns = (batch.files, rankings, cams, answers, distances)
    return [Prediction(*row) for row in zip(*columns, strict=True)]


def log_predictions(path: str, writer: PredictionWriter) -> None:
    """Log the first rows of both tables, without the folder `path`, and the counts."""
    prefix = os.path.join(os.path.expanduser(path), "")
    rows = []
    for prediction in writer.first_predictions:
        classes = [f"{name} {probability:.4f}" for name, probability in prediction.ranking]
        answer = [prediction.answer or ""] if writer.with_answers else []
        rows.append([prediction.file.removeprefix(prefix), *answer, *classes])
    if rows:
        header = ["file", *["answer"] * writer.with_answers, "prediction"]
        ranks = [f"{rank}." for rank in range(2, 2 + len(rows[0]) - len(header))]
        log.info("%s", render_table([*header, *ranks], rows))
        _log_rest(writer.counts.total(), "predictions.csv")
    most_common = writer.counts.most_common(10)
    classes = [f"{name}: {count:,}" for name, count in most_common]
    classes += ["..."] * (len(writer.counts) > 10)
    log.info("Predicted %s (%s)", f"{writer.counts.total():,}", ", ".join(classes))
    if writer.with_answers:
        counts = [f"{name}: {count:,}" for name, count in writer.answers.most_common(10)]
        log.info("Answered %s", ", ".join(counts))
    if writer.num_unreadable:
        rows = [[file.removeprefix(prefix), reason] for file, reason in writer.first_failures]
        table = render_table(["file", "reason"], rows)
        log.info("Could not read %s:\n%s", f"{writer.num_unreadable:,}", table)
        _log_rest(writer.num_unreadable, "unreadable.csv")


def _log_rest(count: int, name: str) -> None:
    if count > SHOWN:
        log.info("... and %s more, in %s", f"{count - SHOWN:,}", name)
