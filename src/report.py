"""`report.html`: a run or an evaluation on one page that needs no network and no script, whatever the run left behind."""

import base64
import csv
import io
import logging
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from markupsafe import Markup
from PIL import Image

from src import charts, measures
from src.datamodules import ImageDataModule
from src.datamodules.augment import PerImage
from src.ensemble import Ensemble
from src.errors import UserError
from src.grad_cam import grad_cam, overlay
from src.run_folder import per_class, read_json, write_text
from src.tasks import ClassificationTask
from src.templates import PAGES

log = logging.getLogger(__name__)
MOST_CLASSES = 20  # in the confusion matrix: more cannot be read on a phone
MOST_BARS = 30
MOST_ROWS = 100
GALLERY = 24
SAMPLES = 16
UNQUOTED = re.compile(r"^([\w+]+=)'(.*)'$", re.S)  # ckpt='a b' stands in run.json as Hydra was to read it
LARGEST = 160  # pixels a side of a picture on the page
HEAT_SECONDS = 2.0  # the most that the heat maps of a page may take, but for the first few


def write_report(
    folder: Path,
    title: str = "",
    task: ClassificationTask | None = None,
    data: ImageDataModule | None = None,
    split: str = "test",
    samples: bool = True,
) -> None:
    """Write `report.html` from the other files of `folder` and, where they are given, from a measured task and its data.

    A page must never cost a run: what goes wrong is told and forgotten.

    Args:
        folder: of a run or an evaluation, also of one that failed or was interrupted.
        title: the page's; empty takes the names in the config.
        task: measured on `split`, with its predictions.
        data: set up for `split`.
        split: `test` or `val`.
        samples: show what the training pictures look like, augmented as in training.
    """
    start = time.monotonic()
    try:
        write_text(folder / "report.html", _page(folder, title, _findings(task, data, split, samples) if task and data else None))
    except Exception:
        log.warning("report.html could not be written.", exc_info=True)
    log.debug("report.html took %.2f s.", time.monotonic() - start)


def _page(folder: Path, title: str, found: Mapping[str, Any] | None) -> str:
    config_file = folder / "config.yaml"
    text = config_file.read_text(encoding="utf-8") if config_file.is_file() else ""
    config, run, results = yaml.safe_load(text) or {}, read_json(folder / "run.json"), read_json(folder / "results.json")
    title = title or " on ".join(name for name in (_class_name(config.get("model")), _class_name(config.get("data"))) if name)
    subtitle = ", ".join(str(x) for x in (folder.name, run.get("status"), run.get("end") or run.get("start")) if x)
    page = {
        "title": title or folder.name,
        "subtitle": subtitle,
        "error": results.get("error"),
        "tiles": _tiles(results, config.get("metrics") or {}),
        "curves": _curves(folder / "metrics.csv", results.get("best_epoch")),
        "found": found,
        "settings": _settings(config),
        "config": text,
        "facts": _facts(run, results),
        "chart_style": Markup(charts.STYLE),
        "tile_width": 172 if found and any(m["heat"] for m in found["mistakes"]) else 104,
        "picture": _image_tag,
        "percent": charts.percent,
    }
    return PAGES.get_template("report.html.jinja").render(page)


# From the files of the folder ---------------------------------------------------------------------------------------------


def _tiles(results: Mapping[str, Any], metrics: Iterable[str]) -> list[tuple[str, str, str]]:
    """(name, value, remark) of the figures that people look for first."""
    tiles = []
    split = "test" if results.get("test") else "val"
    if figures := results.get(split):
        interval = f"{100 * figures['acc_low']:.1f} to {100 * figures['acc_high']:.1f} % (95 %)" if "acc_low" in figures else ""
        tiles = [(f"{split} accuracy", charts.percent(figures["acc"], 2), interval), (f"{split} loss", f"{figures['loss']:.4f}", "")]
        tiles.append(("balanced accuracy", charts.percent(figures["acc_balanced"], 2), "mean over the classes"))
        if "acc_top5" in figures:
            tiles.append(("top-5 accuracy", charts.percent(figures["acc_top5"], 2), ""))
        if "ece" in figures:
            tiles.append(("calibration error", charts.percent(figures["ece"], 2), "how far off its confidence is"))
        tiles += [(f"{split} {name}", f"{figures[name]:.4f}", "") for name in metrics if name in figures]
    if split == "test" and results.get("val"):
        tiles.append(("val accuracy", charts.percent(results["val"]["acc"], 2), f"loss {results['val']['loss']:.4f}"))
    if "best_epoch" in results:
        tiles.append(("best epoch", str(results["best_epoch"] + 1), f"of {results['epochs']}, by {results.get('monitor', 'val/loss')}"))
        tiles.append(("training", _duration(results["train_seconds"]), f"{results['images_per_second']:,.0f} images/s"))
        tiles.append(("parameters", f"{results['num_parameters']:,}", ""))
    return tiles


def _curves(table: Path, best_epoch: int | None) -> list[tuple[str, Markup]]:
    """Loss, accuracy and learning rate over the epochs."""
    if not table.is_file():
        return []
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def column(name: str) -> list[tuple[float, float]]:
        return [(int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name)]

    mark = None if best_epoch is None else best_epoch + 1
    return [
        ("Loss", charts.lines({"train": column("train/loss"), "val": column("val/loss")}, "Loss by epoch", mark)),
        ("Accuracy", charts.lines({"train": column("train/acc"), "val": column("val/acc")}, "Accuracy by epoch", mark, fractions=True)),
        ("Learning rate", charts.lines({"learning rate": column("lr")}, "Learning rate by epoch")),
    ]


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One line a config group: its class and what was chosen for it."""
    alone = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    rows = [("run", _choices(alone))] if alone else []
    for group in ("model", "data", "augment", "optimizer", "scheduler", "task", "trainer"):
        node = (config.get("data") or {}).get("augment") if group == "augment" else config.get(group)
        if isinstance(node, Mapping) and (text := "  ".join(x for x in (_class_name(node), _choices(node)) if x)):
            rows.append((group, text))
    return rows


def _class_name(node: Any) -> str:
    return str(node.get("_target_") or "").rpartition(".")[2].removesuffix("DataModule") if isinstance(node, Mapping) else ""


def _choices(node: Mapping[str, Any]) -> str:
    chosen = {k: v for k, v in node.items() if k != "_target_" and v is not None and v is not False and not isinstance(v, Mapping)}
    return ", ".join(f"{key}={value}" for key, value in chosen.items())


def _facts(run: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What ran when, on what."""
    hardware, git, data = run.get("hardware") or {}, run.get("git") or {}, run.get("data") or {}
    rows = {
        "command": shlex.join(["python", *(UNQUOTED.sub(r"\1\2", x) for x in run["command"])]) if run.get("command") else None,
        "started": run.get("start"),
        "ended": run.get("end"),
        "training": _duration(results["train_seconds"]) if "train_seconds" in results else None,
        "pictures": ", ".join(f"{count:,} {split}" for split, count in (data.get("sizes") or {}).items()),
        "system": hardware.get("system"),
        "processor": f"{hardware.get('processor')}, {hardware.get('cores')} cores, {hardware.get('threads')} threads" if hardware else None,
        "GPUs": ", ".join(hardware.get("gpus") or []) or "none",
        "precision": run.get("precision"),
        "chosen automatically": _choices(run.get("automatic") or {}),
        "versions": ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()),
        "git": f"{git['commit']}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else None,
        "data fingerprint, split": ", ".join(data[key] for key in ("fingerprint", "split_hash") if data.get(key)),
    }
    return [(name, str(value)) for name, value in rows.items() if value]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


# From the task and its data -----------------------------------------------------------------------------------------------


def _findings(task: ClassificationTask, data: ImageDataModule, split: str, samples: bool) -> dict[str, Any]:
    """What was measured on a split, ready for the page; see `write_report`."""
    predictions, confusion, classes = task.predictions[split], task.confusion[split], task.classes
    rows = per_class(classes, confusion)
    bins = measures.calibration(predictions)
    found = class_charts(classes, confusion, bins)
    worst = sorted(rows, key=lambda row: (row["support"] == 0, row["recall"]))[:MOST_ROWS] if len(rows) > MOST_BARS else rows
    wrong = measures.mistakes(predictions)
    shown = measures.Predictions(*(column[:GALLERY] for column in wrong))
    found |= {
        "split_name": f"{split}, {len(predictions.labels):,} pictures",
        "rows": worst,
        "pairs": measures.confused_pairs(classes, confusion),
        "ece": f"{measures.expected_calibration_error(bins):.4f}",
        "mistakes": _gallery(task, data, split, shown),
        "mistakes_note": _mistakes_note(len(wrong.labels), len(predictions.labels), len(shown.labels)),
    }
    return found | (_samples(data, classes) if samples else {"samples": []})


def class_charts(classes: Sequence[str], confusion: torch.Tensor, bins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The charts `bars`, `confusion` and `reliability`, limited to what can be read, with remarks that say so."""
    rows = per_class(classes, confusion)
    bars_note = confusion_note = ""
    if len(rows) > MOST_BARS:
        # A class without pictures has a recall of 0 that says nothing.
        rows = sorted(rows, key=lambda row: (row["support"] == 0, row["recall"]))[:MOST_BARS]
        bars_note = f"the worst of {len(classes):,} classes; all are in per_class.csv"
    chosen = list(range(len(classes)))
    if len(classes) > MOST_CLASSES:
        chosen = measures.most_confused_classes(confusion, MOST_CLASSES)
        confusion_note = f"the {MOST_CLASSES} most confused of {len(classes):,} classes; all are in confusion.csv"
    counts = confusion[chosen][:, chosen].tolist()
    support = confusion[chosen].sum(1).tolist()
    return {
        "bars": charts.bars(rows),
        "bars_note": bars_note,
        "confusion": charts.confusion_matrix([classes[i] for i in chosen], counts, support),
        "confusion_note": confusion_note,
        "confusion_width": 20 * len(chosen) + 90,
        "reliability": charts.reliability(bins),
    }


def _mistakes_note(wrong: int, total: int, shown: int) -> str:
    if not wrong:
        return f"None in {total:,} pictures."
    which = f"the {shown} that the network was most sure of" if shown < wrong else "all of them, the most confident first"
    return f"{wrong:,} of {total:,} pictures, here {which}."


def _gallery(task: ClassificationTask, data: ImageDataModule, split: str, shown: measures.Predictions) -> list[dict[str, Any]]:
    if not len(shown.labels):
        return []
    images = data.images(split, shown.positions)
    names = data.names(split, shown.positions)
    heats = _heat(task, images, shown.predicted)
    return [
        {
            "picture": _uri(images[i]),
            "heat": _uri(heats[i]) if heats is not None and i < len(heats) else None,
            "true": task.classes[shown.labels[i]],
            "predicted": task.classes[shown.predicted[i]],
            "confidence": charts.percent(shown.confidence[i].item(), 2),
            "true_probability": charts.percent(shown.true_probability[i].item(), 2),
            "name": names[i] if not names[i].isdigit() else f"picture {names[i]}",
        }
        for i in range(len(images))
    ]


def _heat(task: ClassificationTask, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor | None:
    """uint8 (n, 3, H, W): Grad-CAM of the classes `targets` laid over the pictures, None for a network without maps.

    Of large networks only the first n pictures, as many as there is time for.
    """
    if isinstance(task.model, Ensemble):
        return None
    maps = []
    start = time.monotonic()
    try:
        for part, classes in zip(images.split(4), targets.split(4), strict=True):
            if time.monotonic() - start < HEAT_SECONDS:
                maps.append(grad_cam(task.model, task.normalize(part.to(task.device)), classes.to(task.device)))
    except UserError:
        return None
    found = torch.cat(maps).cpu()
    return overlay(images[: len(found)].expand(-1, 3, -1, -1), found)


def _samples(data: ImageDataModule, classes: Sequence[str]) -> dict[str, Any]:
    """Some training pictures as the network sees them in training."""
    positions = torch.arange(min(SAMPLES, data.sizes()["train"]))
    labels = data.labels("train")[positions].tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = data.augmented(positions)
    name = "as they are: no augmentation"
    if data.augment is not None:
        transform = data.augment.transform if isinstance(data.augment, PerImage) else data.augment
        name = f"augmented by {type(transform).__name__}"
    mixes = " or ".join(word for word, alpha in (("MixUp", data.mixup), ("CutMix", data.cutmix)) if alpha)
    if mixes:
        name += f"; {mixes} comes on top, in each batch"
    pictures = [{"picture": _uri(image), "true": classes[label]} for image, label in zip(images, labels, strict=True)]
    return {"samples": pictures, "augment": name}


def _uri(image: torch.Tensor) -> tuple[str, bool]:
    """uint8 (C, H, W) -> the picture as a data URI, and whether it is so small that its pixels shall show."""
    side = max(image.shape[1:])
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).contiguous().numpy())
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    kind = "png" if side <= 48 else "jpeg"
    picture.save(buffer, kind, **({} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", side <= 48


def _image_tag(picture: tuple[str, bool], text: str) -> Markup:
    return Markup('<img src="{}" class="{}" alt="{}" title="{}">').format(picture[0], "small" if picture[1] else "", text, text)
