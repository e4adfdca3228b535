"""Measuring a checkpoint on its own data or on others, from the file alone."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from src import charts, measures
from src import checkpoint as ckpt
from src.build import build_metrics, make, make_trainer, resolve_paths
from src.classifier import Classifier
from src.datamodules import ImageDataModule, ImageFolderDataModule
from src.ensemble import Ensemble
from src.errors import UserError
from src.findings import by_class, figures, write_findings
from src.report import class_charts, write_report
from src.run_folder import RunFolder, command_line, per_class, table, write_text
from src.tasks import ClassificationTask
from src.training import facts, quieten

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate `cfg.ckpt` and write the figures, tables and charts, `report.html` and what ran into `folder`.

    Returns:
        The figures of the split as in `results.json`.
    """
    quieten()
    resolve_paths(cfg)
    run = RunFolder(folder)
    run.start(OmegaConf.to_container(cfg, resolve=True), command_line())
    try:
        return _evaluate(cfg, run)
    except BaseException as error:
        text = error.problem if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        run.fail(text, "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed")
        write_report(run.path, "Evaluation")
        raise


def _evaluate(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    paths = checkpoint_files(cfg.ckpt)
    members = [ckpt.read(path) for path in paths]
    stored = members[0]
    if cfg.tta not in (None, "flip"):
        raise UserError(f"tta={cfg.tta!r} is not known.", "Choose flip, or leave it out.")
    metrics = build_metrics(cfg, len(stored["description"]["classes"]))
    alone = len(members) == 1 and cfg.tta is None
    task = rebuild_task(stored, metrics) if alone else ensemble_task(paths, members, cfg.tta == "flip", metrics)
    data = rebuild_data(stored, cfg.data)
    data.relabel(task.classes)
    if cfg.split not in (None, "val", "test"):
        raise UserError(f"split={cfg.split!r} is not known.", "Choose test or val.")
    split = cfg.split or ("test" if data.has_test else "val")
    config = stored["description"].get("config") or {}
    precision = cfg.trainer.precision or config.get("trainer", {}).get("precision", "32-true")
    trainer = make_trainer(
        OmegaConf.create({"_target_": "lightning.Trainer", "accelerator": cfg.trainer.accelerator, "precision": precision}),
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loop = {"test": trainer.test, "val": trainer.validate}[split]
    loop(task, data, verbose=False)
    if split == "val":
        for member in members:
            check_split(member, data)
    results = figures(task, split) | by_class(task, split)
    write_findings(run, task, data, split)
    write_charts(run.path, task, split)
    run.note(data=facts(data))
    files = [str(path.absolute()) for path in paths]
    run.finish({"status": "completed", "checkpoint": files[0] if len(files) == 1 else files, split: results})
    title = f"Evaluation of {' + '.join(map(_network_name, members))} on {type(data).__name__.removesuffix('DataModule')}"
    write_report(run.path, title, task, data, split, samples=False)
    log.info("%s", table(per_class(task.classes, task.confusion[split])))
    for pair in results["most_confused"][:3]:
        log.info("%s taken for %s: %s (%.1f %%)", pair["true"], pair["predicted"], f"{pair['count']:,}", 100 * pair["share"])
    further = "".join(f"{split} {name} {results[name]:.4f}, " for name in cfg.get("metrics") or {})
    log.info(
        "%s accuracy %.4f (95 %%: %.4f to %.4f), %s%s loss %.4f, calibration error %.4f\n%s",
        split, results["acc"], results["acc_low"], results["acc_high"], further, split, results["loss"], results["ece"], run.path,
    )  # fmt: skip
    return results


def checkpoint_files(typed: str | Sequence[str]) -> list[Path]:
    """The files that `ckpt=` names: `a.ckpt`, `a.ckpt,b.ckpt` or `[a.ckpt,b.ckpt]`.

    File names may hold commas and brackets: what exists as it was typed is one file, else the longest existing name up to a comma counts.

    Raises:
        UserError: a file that is not there.
    """
    if not isinstance(typed, str):
        return [Path(path) for path in typed]
    if os.path.isfile(typed):  # unlike Path.is_file it takes a list of files too long for a name as what it is: no file
        return [Path(typed)]
    inner = typed[1:-1] if typed.startswith("[") and typed.endswith("]") else typed
    pieces = inner.split(",")
    files: list[Path] = []
    while pieces:
        name, taken, longest = "", 0, ""
        for n, piece in enumerate(pieces, 1):
            name = f"{name},{piece}" if n > 1 else piece
            if len(os.path.basename(name.replace("\\", "/"))) > 255:  # longer than a file name may be, and so is all that follows
                break
            if os.path.isfile(name.strip()):
                taken, longest = n, name.strip()
        if not taken:
            missing = pieces[0].strip() if files else typed
            raise UserError(f"There is no checkpoint {missing}.", "Give the path of a .ckpt file, such as runs/.../checkpoints/best.ckpt.")
        files.append(Path(longest))
        pieces = pieces[taken:]
    return files


def _network_name(stored: Mapping[str, Any]) -> str:
    """The name of the network in a checkpoint."""
    return str((stored["description"].get("model") or {}).get("_target_", "a network")).rpartition(".")[2]


def ensemble_task(
    paths: Sequence[Path], members: Sequence[Mapping[str, Any]], flip: bool, metrics: Mapping[str, Metric]
) -> ClassificationTask:
    """A task around the mean of several checkpoints.

    Raises:
        UserError: networks that do not look at the same pictures or do not know the same classes.
    """
    first = members[0]["description"]
    for path, member in zip(paths, members, strict=True):
        description = member["description"]
        if set(description["classes"]) != set(first["classes"]):
            raise UserError(
                f"{path} does not know the same classes as {paths[0]}.", "Average networks that were trained on the same classes."
            )
        seen = [(d["channels"], d.get("image_size"), d.get("resize")) for d in (first, description)]
        if seen[0] != seen[1]:
            raise UserError(
                f"{paths[0]} sees pictures as (channels, size, resize) = {seen[0]}, {path} as {seen[1]}.",
                "Average networks that were trained with the same data.channels, data.image_size and data.resize.",
            )
    networks = [Classifier(ckpt.network(member), member["description"]) for member in members]
    ensemble = Ensemble(networks, first["classes"], flip)
    channels = first["channels"]
    mean, std = [0.0] * channels, [1.0] * channels
    return ClassificationTask(ensemble, first["classes"], mean, std, metrics=metrics, channels_last=_layout(first))


def write_charts(folder: Path, task: ClassificationTask, split: str) -> None:
    """The report's charts as files. SVG: sharp in print and on a slide, small, and drawn by the same code, without a plotting library."""
    made = class_charts(task.classes, task.confusion[split], measures.calibration(task.predictions[split]))
    for key, name in (("bars", "per_class"), ("confusion", "confusion"), ("reliability", "calibration")):
        write_text(folder / f"{name}.svg", charts.standalone(made[key]))


def rebuild_task(stored: Mapping[str, Any], metrics: Mapping[str, Metric] | None = None) -> ClassificationTask:
    """The task of a checkpoint, with its weights, ready to be evaluated."""
    description = stored["description"]
    return ClassificationTask(
        ckpt.network(stored),
        classes=description["classes"],
        mean=description["mean"],
        std=description["std"],
        metrics=metrics,
        channels_last=_layout(description),
    )


def _layout(description: Mapping[str, Any]) -> bool | None:
    return (description.get("config") or {}).get("task", {}).get("channels_last")


def rebuild_data(stored: Mapping[str, Any], changes: DictConfig) -> ImageDataModule:
    """The data set of a checkpoint with some choices changed, or another one composed on the command line."""
    description = stored["description"]
    own = (description.get("config") or {}).get("data")
    given = {key: value for key, value in OmegaConf.to_container(changes, resolve=True).items() if value is not None}
    if "_target_" in given:
        shown = {"image_size": description["image_size"], "channels": description["channels"]}
        if "resize" in given:
            shown["resize"] = description["resize"]
        data = make("data", OmegaConf.create({**given, **shown, "augment": None}))  # shown as in training
        if isinstance(data, ImageFolderDataModule) and not data.test_size:
            data.prepare_data()
            data.whole = data.fingerprint() != (description.get("data") or {}).get("fingerprint")
        return data
    if own is None:
        raise UserError(
            "This checkpoint was written by a task composed by hand: it does not say which data it was trained on.",
            "Name them: data=image_folder data.root=...",
        )
    own = {key: value for key, value in own.items() if key not in ckpt.OF_TRAINING}
    return ckpt.construct(own, "datamodules", ImageDataModule, **given)


def check_split(stored: Mapping[str, Any], data: ImageDataModule) -> None:
    """Say so when validation is no longer the split that the network was trained beside."""
    trained = stored["description"].get("data") or {}
    if trained.get("fingerprint") == data.fingerprint() and trained.get("split_hash") != data.split_hash():
        log.warning("The split into train and validation differs from the one of the training: val figures do not compare.")
