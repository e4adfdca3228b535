"""Pages that need no network and no script: `report.html` of a run, `sweep.html` of a sweep."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from ..datamodules.base import ImageDataModule
from ..runs.files import read_json, write_text
from ..runs.text import LINES, printable
from ..tasks.classification import ClassificationTask
from ..tasks.metrics import Evaluation
from . import analysis, plots, sections
from .gallery import misclassified_gallery, training_samples
from .plot_style import DARK, LIGHT, to_png, to_svg
from .text import format_duration, format_number, format_percent

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
MAX_MATRIX_CLASSES = 20  # more would be unreadable on a phone
MAX_BARS = 30
MAX_ROWS = 100  # of the table of classes


def write_report(
    folder: Path,
    title: str,
    task: ClassificationTask | None,
    datamodule: ImageDataModule | None,
    split: str,
    show_samples: bool = True,
) -> None:
    """Write `report.html`, and its plots as `plots/*.png`, from what is in the folder.

    A report never costs a run: a failure is logged as a warning.

    Args:
        folder: of a run or an evaluation, which may have failed or been interrupted.
        task: shows classes, calibration and images where it has been evaluated on `split`.
        show_samples: show training images as they are augmented.
    """
    try:
        page = {"title": title, **_read_folder(folder)}
        evaluation = getattr(task, "evaluations", {}).get(split)
        if task is not None and evaluation is not None:
            page["warning"] = analysis.few_images(split, task.classes, evaluation.confusion)
            page["classes"] = _class_section(folder, split, task.classes, evaluation)
            if isinstance(datamodule, ImageDataModule):  # not a plain LightningDataModule
                page["misclassified"] = misclassified_gallery(task, datamodule, split)
                page["samples"] = training_samples(datamodule) if show_samples else None
        render(folder / "report.html", "report.html.jinja", page)
    except OSError as error:
        log.warning("report.html could not be written: %s", error)
    except Exception:
        log.warning("report.html could not be written.", exc_info=True)


def _read_folder(folder: Path) -> dict[str, Any]:
    """What the report shows of the files in the folder."""
    config_file = folder / "config.yaml"
    text = config_file.read_text(encoding="utf-8") if config_file.is_file() else ""
    config = yaml.safe_load(text) or {}
    run, results = read_json(folder / "run.json"), read_json(folder / "results.json")
    state = [folder.name, run.get("status"), run.get("end") or run.get("start")]
    curves = sections.learning_curves(folder / "metrics.csv", results.get("best_epoch"))
    return {
        "subtitle": ", ".join(filter(None, state)),
        "error": results.get("error"),
        "warning": "",
        "results": results,
        "extra_metrics": list(config.get("metrics") or []),
        "curves": [(name, save_plot(folder, name, figure)) for name, figure in curves],
        "classes": None,
        "misclassified": None,
        "samples": None,
        "settings": sections.settings_rows(config),
        "config": text,
        "environment": sections.environment_rows(run, results),
    }


def save_plot(folder: Path, title: str, figure: Figure) -> str:
    """Write a plot as a PNG file into the folder; returns it as SVG."""
    name = re.sub(r"[^\w.-]+", "_", title.lower())[:100]
    to_png(figure, folder / "plots" / f"{name}.png")
    figure.set_layout_engine("none")  # all has found its place
    return to_svg(figure, title)


def _class_section(
    folder: Path, split: str, classes: Sequence[str], evaluation: Evaluation
) -> dict[str, Any]:
    """Plots and tables of the classes, limited to what can be read, with notes that say so."""
    confusion = evaluation.confusion
    bins = analysis.calibration_bins(evaluation.predictions)
    rows = analysis.per_class(classes, confusion)
    rows_note = matrix_note = ""
    chosen = list(range(len(classes)))
    if len(classes) > MAX_BARS:
        rows_note = f"the worst of {len(classes):,} classes; all are in per_class.csv"
        # Classes without images come last.
        rows.sort(key=lambda row: (row["recall"] is None, row["recall"]))
    if len(classes) > MAX_MATRIX_CLASSES:
        chosen = analysis.most_confused_classes(confusion, MAX_MATRIX_CLASSES)
        which = f"the {len(chosen)} most confused of {len(classes):,} classes"
        matrix_note = f"{which}; all are in confusion.csv"
    matrix = plots.confusion_matrix(
        [classes[i] for i in chosen],
        confusion[chosen][:, chosen],
        confusion[chosen].sum(1),  # with the images predicted as classes not chosen
    )
    return {
        "title": f"{split}, {len(evaluation.predictions.labels):,} images",
        "bars": save_plot(folder, "Recall and precision", plots.class_bars(rows[:MAX_BARS])),
        "rows": rows[:MAX_ROWS],
        "rows_note": rows_note,
        "matrix": save_plot(folder, "Confusion matrix", matrix),
        "matrix_note": matrix_note,
        "matrix_width": 20 * len(chosen) + 90,
        "pairs": analysis.confused_pairs(classes, confusion),
        "reliability": save_plot(folder, "Reliability diagram", plots.reliability_diagram(bins)),
        "calibration_error": f"{analysis.expected_calibration_error(bins):.4f}",
    }


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

    Args:
        running: the page reloads itself every ten seconds.
        jobs: the columns in the order to show. A column `job` (a folder in `folder`) becomes a
            link to its report, `status` colours the row, texts in `error` follow the table.
        groups: means over the repetitions of a setting by the keys `repeated`, such as `seed`.
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
        "plots": [(title, save_plot(folder, title, figure)) for title, figure in figures],
    }
    render(folder / f"{kind}.html", "sweep.html.jinja", page)


def _records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows with values of Python types, None where they are missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _without_controls(value: Any) -> Any:
    """Names without the control characters that pages and XML forbid; plots are Markup."""
    return printable(value, LINES) if type(value) is str else value


def render(path: Path, template: str, page: dict[str, Any]) -> None:
    """Write a page from a template and its values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
    )
    environment.filters.update(
        number=format_number, percent=format_percent, duration=format_duration
    )
    text = environment.get_template(template).render(page, light=LIGHT, dark=DARK)
    write_text(path, text)
