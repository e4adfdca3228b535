"""Comparing trained networks, or settings over several seeds, on the same images."""

import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from ..config.plain import plain_config
from ..reporting.comparison import describe_pair, log_comparison, write_comparison_page
from ..reporting.statistics import (
    METRICS,
    bootstrap_differences,
    compare_seeds,
    holm,
    mcnemar,
    measure,
)
from ..runs import RunFolder
from ..runs.environment import command_line
from ..runs.files import write_json
from .compared_runs import (
    Group,
    Run,
    check_same_images,
    find_runs,
    group_runs,
    images_hash,
    read_run,
)
from .rebuild import split_paths

log = logging.getLogger(__name__)
CHANGED_COLUMNS = ["first", "second", "image", "label", "prediction_first", "prediction_second"]


def compare(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Compare the runs `cfg.runs`, grouped by setting.

    Writes `comparison.json`, `comparison.html` and `changed.csv`, the images that only one of two
    groups classifies correctly, into `folder`.

    Returns:
        The content of `comparison.json`.

    Raises:
        UserError: folders without usable predictions, other images, or less than two settings.
    """
    runs = [read_run(path) for path in find_runs(split_paths(cfg.runs))]
    check_same_images(runs)
    groups = group_runs(runs)
    run = RunFolder(folder)
    run.start(plain_config(cfg), command_line())
    pairs = compare_pairs(groups)
    comparison = {
        "split": runs[0].split,
        "images": len(runs[0].rows),
        "images_hash": images_hash(runs[0]),
        "groups": [_describe_group(group) for group in groups],
        "pairs": [pair | {"conclusion": describe_pair(pair)} for pair in pairs],
    }
    write_json(folder / "comparison.json", comparison)
    changed = [row for pair in combinations(groups, 2) for row in changed_images(*pair)]
    run.write_csv("changed.csv", CHANGED_COLUMNS, [list(row.values()) for row in changed])
    write_comparison_page(folder, comparison, changed)
    run.finish({"status": "completed"})
    log_comparison(comparison)
    log.info("%s", folder)
    return comparison


def compare_pairs(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Compare all pairs of groups; p-values are corrected for the number of pairs."""
    pairs = [_compare_pair(*pair) for pair in combinations(groups, 2)]
    known = [pair for pair in pairs if pair["p"] is not None]
    for pair, corrected in zip(known, holm([pair["p"] for pair in known]), strict=True):
        pair["p_corrected"] = corrected
    return pairs


def _compare_pair(first: Group, second: Group) -> dict[str, Any]:
    matched = _matched(first, second)
    several = len(first.runs) > 1 and len(second.runs) > 1
    pair: dict[str, Any] = {
        "first": first.name,
        "second": second.name,
        "n": [len(first.runs), len(second.runs)],
        "images": bootstrap_differences(first.predictions, second.predictions),
        "mcnemar": [
            mcnemar(first.predictions[i], second.predictions[j]) for i, j in matched or [(0, 0)]
        ],
        "seeds": _compare_over_seeds(first, second, matched) if several else None,
    }
    p = pair["seeds"]["acc"]["p"] if several else pair["mcnemar"][0]["p"]
    comparisons = {"p": p, "p_corrected": None}
    return pair | comparisons


def _matched(first: Group, second: Group) -> list[tuple[int, int]]:
    """Numbers of the runs with the same seeds and folds."""
    places = {run.repeat: i for i, run in enumerate(second.runs)}
    return [(i, places[r.repeat]) for i, r in enumerate(first.runs) if r.repeat in places]


def _compare_over_seeds(
    first: Group, second: Group, matched: Sequence[tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """The tests over seeds of each metric, paired where all runs have a partner."""
    paired = len(matched) == len(first.runs) == len(second.runs)
    sides = [first.runs, [second.runs[j] for _, j in matched] if paired else second.runs]
    values = [
        [_values(run, group) for run in runs]
        for runs, group in zip(sides, (first, second), strict=True)
    ]
    names = [name for name in values[0][0] if all(name in each for side in values for each in side)]
    first_values, second_values = values
    return {
        name: compare_seeds(
            [each[name] for each in first_values], [each[name] for each in second_values], paired
        )
        for name in names
    }


def _values(run: Run, group: Group) -> dict[str, float]:
    """The metrics of a run: those of its predictions, then those that its evaluation computed."""
    own = measure(group.predictions[group.runs.index(run)])
    extra = {
        name: float(value)
        for name, value in run.results.items()
        if isinstance(value, int | float) and name not in ("acc_low", "acc_high")
    }
    return dict(zip(METRICS, map(float, own), strict=True)) | extra


def _describe_group(group: Group) -> dict[str, Any]:
    values = [_values(run, group) for run in group.runs]
    metrics = {
        name: {
            "mean": float(np.mean([each[name] for each in values])),
            "std": float(np.std([each[name] for each in values], ddof=1)) if values[1:] else None,
        }
        for name in values[0]
        if all(name in each for each in values)
    }
    return {
        "name": group.name,
        "folders": [str(run.folder) for run in group.runs],
        "n": len(group.runs),
        "settings": group.settings,
        "metrics": metrics,
        "per_class": _per_class(group),
    }


def _per_class(group: Group) -> dict[str, float]:
    """The mean accuracy of each class that has images."""
    found = {}
    for number, name in enumerate(group.classes):
        correct = [p.predicted[p.labels == number] == number for p in group.predictions]
        found[name] = float(np.mean(correct))
    return found


def changed_images(first: Group, second: Group) -> list[dict[str, str]]:
    """The images that one of two groups classifies correctly and the other does not.

    Of groups with several runs, the first runs with equal seeds are compared.
    """
    i, j = (_matched(first, second) or [(0, 0)])[0]
    rows = zip(first.runs[i].rows, second.runs[j].rows, strict=True)
    found = [
        (first.name, second.name, a["image"], a["label"], a["prediction"], b["prediction"])
        for a, b in rows
        if (a["prediction"] == a["label"]) != (b["prediction"] == b["label"])
    ]
    return [dict(zip(CHANGED_COLUMNS, values, strict=True)) for values in found]
