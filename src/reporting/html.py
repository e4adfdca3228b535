"""Pages that need no network and no script: `report.html` of a run, `sweep.html` of a sweep."""

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from ..datamodules.base import ImageDataModule
from ..runs.files import read_json, write_text
from ..tasks.classification import ClassificationTask
from ..tasks.metrics import Evaluation
from . import plots, sections
from .analysis import (
    calibration_bins,
    confused_pairs,
    expected_calibration_error,
    most_confused_classes,
    per_class,
)
from .gallery import misclassified_gallery, training_samples
from .plot_style import DARK, LIGHT, to_png, to_svg
from .text import format_number, format_percent

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
MAX_MATRIX_CLASSES = 20  # more would be unreadable on a phone
MAX_BARS = 30
MAX_ROWS = 100  # of the table of classes


def write_report(
    folder: Path,
    title: str = "",
    task: ClassificationTask | None = None,
    datamodule: ImageDataModule | None = None,
    split: str = "test",
    show_samples: bool = True,
) -> None:
    """Write `report.html`, and its plots as `plots/*.png`, from what is in the folder.

    Classes, calibration and images are shown where a task with predictions on `split` is given.
    A report never costs a run: a failure is logged as a warning.

    Args:
        folder: of a run or an evaluation, which may have failed or been interrupted.
        title: of the page; empty takes the names of model and data in the config.
        task: evaluated on `split`; one without `evaluations` leaves those sections out.
        datamodule: set up for `split`.
        split: `test` or `val`.
        show_samples: show training images as they are augmented.
    """
    start = time.monotonic()
    try:
        page = _read_folder(Path(folder), title)
        evaluation = getattr(task, "evaluations", {}).get(split)
        if task is not None and evaluation is not None:
            page["classes"] = _class_section(folder, split, task.classes, evaluation)
            if datamodule is not None:
                page["misclassified"] = misclassified_gallery(task, datamodule, split)
                page["samples"] = training_samples(datamodule) if show_samples else None
        write_text(Path(folder) / "report.html", _render("report.html.jinja", page))
    except Exception:
        log.warning("report.html could not be written.", exc_info=True)
    log.debug("report.html took %.2f s.", time.monotonic() - start)


def _read_folder(folder: Path, title: str) -> dict[str, Any]:
    """What the report shows of the files in the folder."""
    config_file = folder / "config.yaml"
    text = config_file.read_text(encoding="utf-8") if config_file.is_file() else ""
    config = yaml.safe_load(text) or {}
    run, results = read_json(folder / "run.json"), read_json(folder / "results.json")
    names = [sections.class_name(config.get(group)) for group in ("model", "data")]
    state = [folder.name, run.get("status"), run.get("end") or run.get("start")]
    curves = sections.learning_curves(folder / "metrics.csv", results.get("best_epoch"))
    return {
        "title": title or " on ".join(filter(None, names)) or folder.name,
        "subtitle": ", ".join(filter(None, state)),
        "error": results.get("error"),
        "cards": sections.metric_cards(results, config.get("metrics") or []),
        "curves": [(name, _save(folder, name, figure)) for name, figure in curves],
        "classes": None,
        "misclassified": None,
        "samples": None,
        "settings": sections.settings_rows(config),
        "config": text,
        "environment": sections.environment_rows(run, results),
    }


def _save(folder: Path, title: str, figure: Figure) -> str:
    """Write a plot as a PNG file into the folder; returns it as SVG."""
    name = re.sub(r"[^\w.-]+", "_", title.lower())[:100]
    to_png(figure, folder / "plots" / f"{name}.png")
    return to_svg(figure, title)


def _class_section(
    folder: Path, split: str, classes: Sequence[str], evaluation: Evaluation
) -> dict[str, Any]:
    """Plots and tables of the classes, limited to what can be read, with notes that say so."""
    confusion = evaluation.confusion
    bins = calibration_bins(evaluation.predictions)
    rows = per_class(classes, confusion)
    rows_note = matrix_note = ""
    if len(rows) > MAX_BARS:
        rows_note = f"the worst of {len(classes):,} classes; all are in per_class.csv"
        # Classes without images come last.
        rows.sort(key=lambda row: (row["recall"] is None, row["recall"]))
    chosen = list(range(len(classes)))
    if len(classes) > MAX_MATRIX_CLASSES:
        chosen = most_confused_classes(confusion, MAX_MATRIX_CLASSES)
        matrix_note = f"the {len(chosen)} most confused of {len(classes):,} classes"
        matrix_note += "; all are in confusion.csv"
    bars = plots.class_bars(rows[:MAX_BARS])
    matrix = _matrix(classes, confusion, chosen)
    reliability = plots.reliability_diagram(bins)
    return {
        "title": f"{split}, {len(evaluation.predictions.labels):,} images",
        "bars": _save(folder, "Recall and precision", bars),
        "rows": rows[:MAX_ROWS],
        "rows_note": rows_note,
        "matrix": _save(folder, "Confusion matrix", matrix),
        "matrix_note": matrix_note,
        "matrix_width": 20 * len(chosen) + 90,
        "pairs": confused_pairs(classes, confusion),
        "reliability": _save(folder, "Reliability diagram", reliability),
        "calibration_error": f"{expected_calibration_error(bins):.4f}",
    }


def _matrix(classes: Sequence[str], confusion: torch.Tensor, chosen: list[int]) -> Figure:
    names = [classes[i] for i in chosen]
    support = confusion[chosen].sum(1)  # with the images predicted as classes not chosen
    return plots.confusion_matrix(names, confusion[chosen][:, chosen], support)


def write_sweep_page(
    folder: Path,
    kind: str,
    status_line: str,
    running: bool,
    jobs: "pd.DataFrame",
    groups: "pd.DataFrame | None",
    repeated: str,
    figures: Sequence[tuple[str, Figure]],
) -> None:
    """Write `<kind>.html`, and its plots as `plots/*.png`, into the folder of a sweep or search.

    Values are shown by `format_number`, missing ones are empty.

    Args:
        folder: of the sweep; the page is named after it.
        kind: `sweep` or `search`.
        status_line: how many jobs there are in each state.
        running: the page reloads itself every ten seconds.
        jobs: a row for each job, the best first, with the columns in the order to show. A column
            `job` (its folder, relative to `folder`) becomes a link to its report, `status` colours
            the row, and texts in a column `error` are listed below the table.
        groups: means over the repetitions of a setting, or None.
        repeated: the keys that repeat a setting, such as `seed`.
        figures: plots with their titles, shown first.
    """
    page = {
        "kind": kind,
        "name": folder.name,
        "status_line": status_line,
        "running": running,
        "columns": [str(name) for name in jobs.columns if name != "error"],
        "rows": _records(jobs),
        "groups": [] if groups is None else _records(groups),
        "repeated": repeated,
        "plots": [(title, _save(folder, title, figure)) for title, figure in figures],
    }
    write_text(folder / f"{kind}.html", _render("sweep.html.jinja", page))


def _records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows with values of Python types, None where they are missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _render(template: str, page: dict[str, Any]) -> str:
    templates = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": format_number, "percent": format_percent}
    return environment.get_template(template).render(light=LIGHT, dark=DARK, **page)
