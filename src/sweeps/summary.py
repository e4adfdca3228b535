"""The summary of a sweep or search: `summary.csv`, `summary.md` and a page, read from the jobs.

Everything comes from the folders of the jobs, whatever ran them, in which order, and how often.
Jobs are ranked by validation loss. Test metrics are shown; nothing is chosen by them.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..reporting.html import write_sweep_page
from ..reporting.sweep_plots import metric_by_setting
from ..reporting.text import format_number, render_table
from ..runs.files import Lock, read_json, write_text
from ..runs.reading import number
from ..runs.run_folder import status
from .job_files import is_column, job_folders, one_line, read_numbers, read_settings

log = logging.getLogger(__name__)
MAX_PLOTS = 20
REPEATS = ("seed", "data.split_seed", "data.fold")  # keys that repeat a setting


def write_summary(
    folder: Path, kind: str = "sweep", figures: Sequence[tuple[str, Figure]] = ()
) -> pd.DataFrame:
    """Write the three files.

    Args:
        kind: sweep or search; the name of the page.
        figures: plots with their titles, shown before those of the settings.

    Returns:
        The jobs, as `read_jobs` does.
    """
    with Lock(folder / ".summary.lock"):  # jobs on several machines write it
        jobs, keys = read_jobs(folder)
        groups = group_repeats(jobs, keys)
        write_text(folder / "summary.csv", jobs.to_csv(index=False, lineterminator="\n"))
        write_text(folder / "summary.md", _markdown(folder.name, jobs, keys, groups))
        finished = jobs[jobs["val/acc"].notna()]
        plots = list(figures)
        for key in keys[:MAX_PLOTS]:
            points = list(zip(finished[key], finished["val/acc"], strict=True))
            plots.append((f"Validation accuracy by {key}", metric_by_setting(points, key)))
        write_sweep_page(
            folder,
            kind,
            status_line(jobs),
            bool(jobs["status"].isin(["running", "waiting"]).any()),
            _shown(jobs).assign(error=jobs["error"]),
            groups,
            _repeated(keys),
            plots,
        )
    return jobs


def update_summary(
    folder: Path,
    kind: str = "sweep",
    make_figures: Callable[[], Sequence[tuple[str, Figure]]] = tuple,
) -> None:
    """Write the summary while jobs run, which must not end with an error in it."""
    try:
        write_summary(folder, kind, make_figures())
    except Exception:
        log.warning("The summary of %s could not be written.", folder, exc_info=True)


def read_jobs(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read the jobs of a sweep.

    Returns:
        A row for each job, lowest validation loss first, with the columns job, the keys that vary,
        status, the metrics of `val` and `test`, best_epoch, train_seconds, folder and error; and
        the keys that vary.
    """
    folders = job_folders(folder)
    settings = pd.DataFrame(map(read_settings, folders)).fillna("")
    keys = [name for name in settings if settings[name].nunique() > 1 and not is_column(name)]
    jobs = pd.DataFrame({"job": [path.relative_to(folder).as_posix() for path in folders]})
    jobs[keys] = settings[keys]
    jobs["status"] = [status(path) for path in folders]
    results = [read_json(path / "results.json") for path in folders]
    jobs = jobs.join(read_numbers(results))
    jobs["folder"] = [str(path) for path in folders]
    jobs["error"] = [one_line(result.get("error") or "") for result in results]
    return _rank(jobs), keys


def _rank(rows: pd.DataFrame) -> pd.DataFrame:
    """Lowest validation loss first; rows without a finite one last."""
    finite = rows["val/loss"].replace([np.inf, -np.inf], np.nan)
    return rows.loc[finite.sort_values(kind="stable").index].reset_index(drop=True)


def group_repeats(jobs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame | None:
    """Group the jobs that differ in their seeds and folds alone.

    With k-fold splits, `val/acc pooled` is the accuracy over the out-of-fold predictions of all
    images: each fold counts by its number of images.

    Returns:
        A row for each group, lowest validation loss first: the settings, the number of jobs, the
        number `n` of completed ones, and the mean and sample standard deviation of each metric
        over these. None where no seed and no fold varies.
    """
    settings = [key for key in keys if key not in REPEATS]
    if len(settings) == len(keys):
        return None
    jobs = jobs.assign(n=jobs["status"] == "completed")
    metrics = [name for name in jobs if name.startswith(("val/", "test/"))]
    jobs.loc[~jobs["n"], metrics] = np.nan
    grouped = jobs.groupby(settings or (lambda _: 0), sort=False)
    columns = {"jobs": grouped.size(), "n": grouped["n"].sum()}
    for name in metrics:
        columns[name] = grouped[name].mean()
        columns[f"{name} std"] = grouped[name].std()
    if "data.fold" in keys:
        columns["val/acc pooled"] = grouped.apply(_pooled_accuracy)
    table = pd.DataFrame(columns).reset_index(drop=not settings)
    if table["val/loss"].isna().all():
        return table[[*settings, "jobs", "n"]]
    return _rank(table).dropna(axis="columns", how="all")


def _pooled_accuracy(jobs: pd.DataFrame) -> float:
    completed = jobs[jobs["n"]]
    if completed.empty:
        return np.nan
    runs = [read_json(Path(folder, "run.json")) for folder in completed["folder"]]
    sizes = [number(run, "data", "sizes", "val") for run in runs]
    if not all(size > 0 for size in sizes):
        return np.nan
    return float(np.average(completed["val/acc"], weights=sizes))


def status_line(jobs: pd.DataFrame) -> str:
    """The number of jobs by their status."""
    counts = jobs["status"].value_counts(sort=False)
    return f"{len(jobs)} jobs: {', '.join(f'{n} {name}' for name, n in counts.items())}."


def format_summary(folder: Path) -> str:
    """The summary for the screen."""
    jobs, keys = read_jobs(folder)
    shown = _shown(jobs).drop(columns="folder")
    text = f"{status_line(jobs)} Ranked by validation loss:\n"
    text += render_table(list(shown), _rows(shown))
    groups = group_repeats(jobs, keys)
    if groups is not None:
        text += f"\n\nOver {_repeated(keys)}:\n{render_table(list(groups), _rows(groups))}"
    for job in jobs[jobs["error"] != ""].itertuples():
        text += f"\nJob {job.job} {job.status}: {job.error}"
    return text


def _repeated(keys: Sequence[str]) -> str:
    return " and ".join(key for key in keys if key in REPEATS)


def _shown(jobs: pd.DataFrame) -> pd.DataFrame:
    """All columns but the error, test metrics only where there are any, short folders."""
    empty = [name for name in jobs if name.startswith("test/") and jobs[name].isna().all()]
    seconds = [f"{value:.1f}" if value == value else "" for value in jobs["train_seconds"]]
    folders = [Path(folder).name for folder in jobs["folder"]]
    return jobs.drop(columns=["error", *empty]).assign(train_seconds=seconds, folder=folders)


def _rows(table: pd.DataFrame) -> list[list[Any]]:
    """Plain Python values, None where there is none."""
    return table.astype(object).where(table.notna(), None).to_numpy().tolist()


def _markdown(
    name: str, jobs: pd.DataFrame, keys: Sequence[str], groups: pd.DataFrame | None
) -> str:
    text = f"# {name}\n\n{status_line(jobs)} Ranked by validation loss.\n\n"
    text += _markdown_table(_shown(jobs))
    if groups is not None:
        text += f"\nOver {_repeated(keys)}: mean, and standard deviation of the sample.\n\n"
        text += _markdown_table(groups)
    failures = jobs[jobs["error"] != ""]
    if not failures.empty:
        lines = failures["job"] + ": " + failures["error"]
        text += "\n" + "".join(f"- {line}\n" for line in lines)
    return text


def _markdown_table(table: pd.DataFrame) -> str:
    lines = [list(table), ["---"] * len(table.columns)]
    lines += [[format_number(value) for value in row] for row in _rows(table)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in escaped)
