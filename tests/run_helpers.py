"""Shared helpers for tests of whole runs: cutting runs off, comparing run folders."""

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

SMALL = [
    "model=lenet",
    "data.image_size=16",
    "data.batch_size=32",
    "trainer.limit_train_batches=12",
    "trainer.limit_val_batches=3",
    "trainer.limit_test_batches=3",
    "~callbacks.report",
]
TIMES = ("seconds", "images_per_second", "train_seconds")
forks = pytest.mark.skipif(sys.platform != "linux", reason="starts its runs by fork")


class Cut(BaseException):
    """Stands for a kill inside this process."""


@contextmanager
def cut_after(batches: int) -> Iterator[None]:
    """Raise `Cut` at the end of a training batch, counted from the start of the run."""
    from src.callbacks import StepSeed

    original = StepSeed.on_train_batch_end

    def cut(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.batches == batches:
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepSeed, "on_train_batch_end", cut)
        with pytest.raises(Cut):
            yield


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_results(folder: Path, name: str = "results.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def read_checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs: weights, optimizer, tables, results; not times."""
    found = []
    for name in ("best", "last"):
        contents = [read_checkpoint(run, name) for run in (one, other)]
        for key in ("state_dict", "current_model_state", "optimizer_states"):
            states = [dict(tensors(content.get(key, {}))) for content in contents]
            if states[0].keys() != states[1].keys():
                found.append(f"{name}.ckpt {key}")
                continue
            found += [
                f"{name}.ckpt {key}{place}"
                for place, tensor in states[0].items()
                if not torch.equal(tensor, states[1][place])
            ]
    for name in ("metrics.csv", "predictions.csv"):
        tables = [[without_times(row) for row in read_rows(run / name)] for run in (one, other)]
        if tables[0] != tables[1]:
            found.append(name)
    results = [without_times(read_results(run)) for run in (one, other)]
    found += [f"results.json {key}" for key in results[0] if results[0][key] != results[1].get(key)]
    return found


def tensors(state: Any, place: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors and numbers in a nested state, with their places."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{place}.{key}")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from tensors(value, f"{place}.{i}")
    elif isinstance(state, torch.Tensor | int | float):
        yield place, torch.as_tensor(state)
