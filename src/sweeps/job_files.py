"""What is read from the folder of a job, which may come from somebody else."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..runs.files import read_json
from ..runs.reading import UNREADABLE, number, read_yaml
from ..runs.run_folder import status
from ..runs.text import printable

OVERRIDES = Path(".hydra", "overrides.yaml")  # what was typed for a job; Hydra's name and format
COLUMNS = ("job", "status", "best_epoch", "train_seconds", "folder", "error")
MAX_OVERRIDES = 1000  # of a job
MAX_METRICS = 50  # of a job, in addition to loss and accuracy
MAX_ERROR = 2000  # characters
MAX_EPOCHS = 2**31


def job_folders(folder: Path) -> list[Path]:
    """The folders of the jobs of a sweep or search, by their names."""
    paths = (path.parents[1] for path in folder.rglob(str(OVERRIDES)))
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def typed_for(folder: Path) -> list[str] | None:
    """The overrides of a job; None where its file cannot be read or holds something else."""
    try:
        typed = read_yaml(folder / OVERRIDES) or []
    except UNREADABLE:
        return None
    is_list = isinstance(typed, list) and len(typed) <= MAX_OVERRIDES
    return typed if is_list and all(isinstance(item, str) for item in typed) else None


def read_settings(folder: Path) -> dict[str, str]:
    """What was typed for a job, as text by key."""
    pairs = (override.partition("=") for override in typed_for(folder) or [])
    return {printable(key.lstrip("+~")): printable(value) for key, _, value in pairs}


def is_column(name: str) -> bool:
    """Whether a column of the table, other than those of settings, has this name."""
    return name in COLUMNS or name.startswith(("val/", "test/"))


def read_numbers(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The metrics of both splits, the best epoch and the seconds."""
    extra = dict.fromkeys(name for result in results for name in _metric_names(result))
    names = [(split, name) for split in ("val", "test") for name in ("loss", "acc", *extra)]
    columns = {"/".join(keys): [number(result, *keys) for result in results] for keys in names}
    epochs = [number(result, "best_epoch") for result in results]
    columns["best_epoch"] = pd.array(
        [int(epoch) if 0 <= epoch < MAX_EPOCHS else None for epoch in epochs], "Int64"
    )
    columns["train_seconds"] = [number(result, "train_seconds") for result in results]
    return pd.DataFrame(columns)


def _metric_names(results: Mapping[str, Any]) -> list[str]:
    names = results.get("metrics")
    if not isinstance(names, list) or len(names) > MAX_METRICS:
        return []
    return [printable(name) for name in names if isinstance(name, str)]


def describe_result(folder: Path) -> str:
    """How a job ended, in a line."""
    results = read_json(folder / "results.json")
    if results.get("status") != "completed":
        return f"{status(folder)}: {one_line(results.get('error'))}"
    loss, accuracy = (number(results, "val", name) for name in ("loss", "acc"))
    seconds = number(results, "train_seconds")
    return f"val/loss {loss:.4f}, val/acc {accuracy:.4f}, {seconds:.1f} s of training"


def one_line(text: object) -> str:
    return printable(" ".join(str(text)[:MAX_ERROR].split()))
