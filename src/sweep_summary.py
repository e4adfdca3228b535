"""What a sweep found out: `summary.csv`, `summary.md` and `sweep.html` in its folder, written anew whenever a job starts or ends.

Everything is read from the jobs' own folders, so it does not matter what ran them, or in which order, or how often.
Jobs are ranked by validation loss. Test figures are shown and choose nothing.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from src import charts
from src.job_folder import OVERRIDES, status
from src.run_folder import read_json, write_text
from src.templates import PAGES
from src.text_table import aligned, brief

REPEATS = ("seed", "data.split_seed", "data.fold")  # keys that repeat a setting instead of being one


def write_summary(sweep: Path, kind: str = "sweep", findings: Mapping[str, charts.Markup] | None = None) -> list[dict[str, Any]]:
    """Write the three files.

    Args:
        sweep: folder of the sweep.
        kind: sweep or search; names the page.
        findings: charts by title, shown first.

    Returns:
        A row a job, the best one first: `job`, the keys that vary, `status`, the figures of `val` and `test`, `best_epoch`,
        `train_seconds`, `folder`, `error`.
    """
    with FileLock(sweep / ".summary.lock"):  # jobs on several machines write it
        rows, keys = read_jobs(sweep)
        write_text(sweep / "summary.csv", _csv(rows))
        grouped = groups(rows, keys)
        text = f"# {sweep.name}\n\n{_progress(rows)} Ranked by validation loss.\n\n{_markdown(rows, _columns(rows, keys))}"
        if grouped:
            text += f"\nOver {_repeated(keys)}: mean, and standard deviation of the sample.\n\n{_markdown(grouped, list(grouped[0]))}"
        failures = [f"- {row['job']}: {row['error']}" for row in rows if row["error"]]
        write_text(sweep / "summary.md", text + ("\n" + "\n".join(failures) + "\n" if failures else ""))
        page = PAGES.get_template("sweep.html.jinja").render(
            kind=kind,
            name=sweep.name,
            findings=findings or {},
            progress=_progress(rows),
            running=any(row["status"] in ("running", "waiting") for row in rows),
            rows=rows,
            columns=_columns(rows, keys),
            show=_show,
            grouped=grouped,
            repeated=_repeated(keys),
            charts=[(key, _chart(rows, key)) for key in keys],
            chart_style=charts.STYLE,
        )
        write_text(sweep / f"{kind}.html", page)
    return rows


def read_jobs(sweep: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a job, ranked, and the keys that vary among them."""
    folders = sorted((path.parent.parent for path in sweep.rglob(str(OVERRIDES))), key=lambda path: (len(path.name), path.name))
    typed = {folder: _settings(folder) for folder in folders}
    names = list(dict.fromkeys(name for settings in typed.values() for name in settings))
    keys = [name for name in names if len({settings.get(name) for settings in typed.values()}) > 1]
    results = {folder: read_json(folder / "results.json") for folder in folders}
    further = dict.fromkeys(name for result in results.values() for name in result.get("metrics", []))
    figures = [f"{split}/{name}" for split in ("val", "test") for name in ("loss", "acc", *further)]
    rows = []
    for folder, settings in typed.items():
        row: dict[str, Any] = {"job": folder.relative_to(sweep).as_posix()}
        row |= {key: settings.get(key, "") for key in keys}
        row["status"] = status(folder)
        for name in figures:
            split, figure = name.split("/")
            row[name] = (results[folder].get(split) or {}).get(figure)
        row |= {name: results[folder].get(name) for name in ("best_epoch", "train_seconds")}
        row |= {"folder": str(folder), "error": " ".join(str(results[folder].get("error") or "").split())}
        rows.append(row)
    return sorted(rows, key=lambda row: _rank(row["val/loss"])), keys


def _settings(folder: Path) -> dict[str, str]:
    """What was typed for a job, as text by key."""
    overrides = yaml.safe_load((folder / OVERRIDES).read_text(encoding="utf-8")) or []
    pairs = (override.partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, _, value in pairs}


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of figures: loss, accuracy and further metrics of both splits."""
    return [name for name in rows[0] if name.startswith(("val/", "test/"))]


def _rank(loss: float | None) -> float:
    return loss if loss is not None and math.isfinite(loss) else math.inf


def groups(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Jobs that differ in nothing but seed or fold, together, the best group first: `n` and, for each figure, mean and deviation.

    With k-fold splits `val/acc pooled` is the share of all out-of-fold pictures that were told right, every fold counted by its size.

    Returns:
        A row a group; nothing where no seed and no fold varies.
    """
    settings = [key for key in keys if key not in REPEATS]
    if len(settings) == len(keys):
        return []
    members: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        members.setdefault(tuple(row[key] for key in settings), []).append(row)
    grouped = []
    for values, jobs in members.items():
        done = [job for job in jobs if job["status"] == "completed"]
        group: dict[str, Any] = dict(zip(settings, values, strict=True)) | {"jobs": len(jobs), "n": len(done)}
        for name in _figures(rows):
            figures = [job[name] for job in done if job[name] is not None]
            group[name] = statistics.fmean(figures) if figures else None
            group[f"{name} std"] = statistics.stdev(figures) if len(figures) > 1 and all(map(math.isfinite, figures)) else None
        if "data.fold" in keys:
            sizes = [read_json(Path(job["folder"]) / "run.json")["data"]["sizes"]["val"] for job in done]
            hits = sum(job["val/acc"] * size for job, size in zip(done, sizes, strict=True))
            group["val/acc pooled"] = hits / sum(sizes) if sizes else None
        grouped.append(group)
    empty = {name for name in grouped[0] if name.startswith(("val/", "test/")) and all(row[name] is None for row in grouped)}
    grouped = [{name: value for name, value in row.items() if name not in empty} for row in grouped]
    return sorted(grouped, key=lambda row: _rank(row.get("val/loss")))


def line(folder: Path) -> str:
    """How a job ended, in a line."""
    results = read_json(folder / "results.json")
    if results.get("status") != "completed":
        return f"{results.get('status')}: {' '.join(str(results.get('error')).split())}"
    return f"val/loss {results['val']['loss']:.4f}, val/acc {results['val']['acc']:.4f}, {results['train_seconds']:.1f} s of training"


def table(sweep: Path) -> str:
    """The summary for the screen."""
    rows, keys = read_jobs(sweep)
    text = f"{_progress(rows)} Ranked by validation loss:\n{_aligned(rows, [c for c in _columns(rows, keys) if c != 'folder'])}"
    if grouped := groups(rows, keys):
        text += f"\n\nOver {_repeated(keys)}:\n{_aligned(grouped, list(grouped[0]))}"
    for row in rows:
        if row["error"]:
            text += f"\nJob {row['job']} {row['status']}: {row['error']}"
    return text


def _progress(rows: Sequence[Mapping[str, Any]]) -> str:
    states = [row["status"] for row in rows]
    return f"{len(rows)} jobs: {', '.join(f'{states.count(s)} {s}' for s in dict.fromkeys(states))}."


def _repeated(keys: Sequence[str]) -> str:
    return " and ".join(key for key in keys if key in REPEATS)


def _columns(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """What is shown: everything but the error, and test figures only where there are some."""
    tested = any(row["test/loss"] is not None for row in rows)
    figures = [name for name in _figures(rows) if tested or not name.startswith("test")]
    return ["job", *keys, "status", *figures, "best_epoch", "train_seconds", "folder"]


def _show(name: str, value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value == "":
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if name == "train_seconds" else f"{value:.4f}"
    return Path(value).name if name == "folder" else brief(str(value))


def _aligned(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    return aligned([list(columns), *([_show(name, row[name]) for name in columns] for row in rows)])


def _markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    lines = [columns, ["---"] * len(columns), *([_show(name, row[name]) for name in columns] for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _chart(rows: Sequence[Mapping[str, Any]], key: str) -> charts.Markup:
    return charts.settings([(row[key], row["val/acc"]) for row in rows if row["val/acc"] is not None], key)
