"""Helpers of the tests that predict files."""

import csv
from pathlib import Path

from helpers import composed

from src.engine.predict import predict


def run_predict(checkpoint: Path, path: object, folder: Path, **settings: object) -> dict:
    """`python predict.py ...` in this process; returns its results."""
    settings = {"device": "cpu"} | settings
    cfg = composed([f"{key}={value}" for key, value in settings.items()], "predict")
    cfg.ckpt, cfg.path = str(checkpoint), str(path)
    return predict(cfg, folder)


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
