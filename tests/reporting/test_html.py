"""Pages: the values of the run, nothing from outside, every name escaped, small for any data."""

import html
import json
import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from src.reporting.html import write_report, write_sweep_page
from src.reporting.sweep_plots import metric_by_setting

AWKWARD = [
    "<script>alert(1)</script>",
    "a=1,b",
    "(c) d",
    "猫和狗",
    "\"quoted\" & 'so'",
    "{{ 7 * 7 }}",
    "x" * 300,
    "7",
    "8",
    "9",
]
METRICS = {"loss": 0.3166, "acc": 0.883, "acc_low": 0.8766, "acc_high": 0.8891}
METRICS |= {"acc_balanced": 0.881, "acc_top5": 0.9982, "ece": 0.0124, "f1": 0.5}
CONFIG = {
    "model": {"_target_": "src.models.LeNet", "width": 8},
    "data": {"_target_": "src.datamodules.DigitsDataModule", "val_size": 0.1, "augment": None},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05},
    "metrics": {"f1": {}},
    "seed": 3,
}


def text_of(page: str) -> str:
    """What a reader sees: without tags and with single blanks."""
    page = re.sub(r"<(style|title|head)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def page_of(folder: Path, name: str = "report.html") -> str:
    return (folder / name).read_text(encoding="utf-8")


def write_run(folder: Path, results: dict, **run) -> None:
    """The files of a run that a report is made from."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "results.json").write_text(json.dumps(results))
    command = ["train.py", "optimizer.lr=0.05", "ckpt='a b.ckpt'"]
    record = {"status": results["status"], "command": command, "end": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(record | run))


@pytest.fixture
def completed(tmp_path) -> Path:
    results = {"status": "completed", "val": METRICS, "test": METRICS, "best_epoch": 1}
    results |= {"epochs": 2, "train_seconds": 65.2, "images_per_second": 7419.0}
    results |= {"num_parameters": 44_426, "metrics": ["f1"]}
    hardware = {"system": "Linux", "processor": "CPU", "cores": 2, "threads": 1, "gpus": []}
    write_run(tmp_path, results, hardware=hardware, data={"sizes": {"train": 1293, "val": 144}})
    rows = ["epoch,train/loss,val/loss,train/acc,val/acc,lr", "0,2.2,1.6,0.2,0.3,0.02"]
    (tmp_path / "metrics.csv").write_text("\n".join([*rows, "1,0.6,0.2,0.7,,0.02"]))
    return tmp_path


def test_a_report_shows_the_values_of_the_run(completed, evaluated):
    task, data = evaluated(list("0123456789"))
    write_report(completed, "LeNet on Digits", task, data, "val")
    page = page_of(completed)
    text = text_of(page)
    for part in (
        "LeNet on Digits",
        "88.30 %",
        "87.7 to 88.9 % (95 %)",
        "0.3166",
        "test f1 0.5000",
        "best epoch 2 of 2, by val/loss",
        "1 min 5 s 7,419 images/s",
        "44,426",
        "SGD lr=0.05",
        "seed=3",
        "python train.py optimizer.lr=0.05 'ckpt=a b.ckpt'",
        "1,293 train, 144 val",
        "CPU, 2 cores, 1 threads",
        "without augmentation",
    ):
        assert part in text, part
    evaluation = task.evaluations["val"]
    wrong = int((evaluation.predictions.predicted != evaluation.predictions.labels).sum())
    assert f"{wrong} of {len(evaluation.predictions.labels)} images" in text
    names = ["accuracy", "confusion_matrix", "learning_rate", "loss"]
    names += ["recall_and_precision", "reliability_diagram"]
    assert sorted(path.stem for path in (completed / "plots").glob("*.png")) == names
    assert page.count("<svg") == len(names)
    # A page needs nothing from outside.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"url\((?!#)|@import|<script", page)
    assert "default-src 'none'" in page and "width=device-width" in page
    assert "prefers-color-scheme: dark" in page


def test_names_are_escaped(tmp_path, evaluated):
    task, data = evaluated(AWKWARD)

    def names(split, positions):
        return [f"<img src=x onerror=alert({i})>=,( 猫.png" for i in positions.tolist()]

    data.names = names
    write_report(tmp_path, "<b>title</b>", task, data, "val")
    page = page_of(tmp_path)
    assert "<script" not in page and "<img src=x" not in page and "<b>title" not in page
    text = text_of(page)
    assert all(name in text for name in AWKWARD)  # in the table of classes
    assert "<img src=x onerror=alert(" in text and ">=,( 猫.png" in text
    for plot in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(plot)


def test_many_classes_stay_readable_and_small(tmp_path, evaluated):
    task, data = evaluated([f"class number {i}" for i in range(1000)])
    write_report(tmp_path, "", task, data, "val")
    page = page_of(tmp_path)
    text = text_of(page)
    assert "the 20 most confused of 1,000 classes" in text
    assert "the worst of 1,000 classes" in text
    assert len(page) < 600_000
    # Classes without images come after those with images.
    assert {f"class number {i}" for i in range(10)} <= set(re.findall(r"class number \d+", text))


def test_a_failed_run_has_a_report(tmp_path):
    write_run(tmp_path, {"status": "failed", "error": "<no> memory", "seed": 0})
    write_report(tmp_path, "LeNet on Digits", None, None, "val")
    text = text_of(page_of(tmp_path))
    assert "LeNet on Digits" in text and "failed" in text and "<no> memory" in text
    assert "optimizer.lr=0.05" in text and "Confusion" not in text


def test_an_empty_folder_and_a_plain_module(tmp_path):
    write_report(tmp_path, "", nn.Linear(1, 1), None, "val")
    assert tmp_path.name in page_of(tmp_path)
    results = {"status": "completed", "val": {"loss": 0.5}, "test": None, "best_epoch": None}
    results |= {"train_seconds": None, "images_per_second": None, "num_parameters": None}
    write_run(tmp_path, results)
    (tmp_path / "metrics.csv").write_text("epoch,train_loss,val_loss\n0,1.5,1.0\n1,1.0,0.5\n")
    write_report(tmp_path, "", nn.Linear(1, 1), None, "val")
    page = page_of(tmp_path)
    assert "val loss 0.5000" in text_of(page) and page.count("<svg") == 1


def test_a_report_that_fails_is_a_warning(tmp_path, evaluated, caplog):
    task, data = evaluated(list("0123456789"))
    data.names = None
    with caplog.at_level(logging.WARNING):
        write_report(tmp_path, "", task, data, "val")
    assert not (tmp_path / "report.html").exists()
    assert "TypeError" in caplog.text and "test_html" not in caplog.messages[0]


def test_float_images_of_other_channels_cost_no_report(tmp_path, evaluated):
    task, data = evaluated(list("0123456789"))
    images = data.images

    def float_images(split, positions):
        return images(split, positions).float() / 255

    data.images = float_images
    task.normalize = lambda x: (x - 0.5) / 0.5
    data.augmented = lambda positions: torch.rand(len(positions), 4, 9, 9)
    write_report(tmp_path, "", task, data, "val")
    assert page_of(tmp_path).count("<figure>") > 16


def test_a_sweep_page(tmp_path):
    jobs = pd.DataFrame(
        [
            {"job": "lr=0.1, <b>", "optimizer.lr": "0.1000000001", "status": "completed"},
            {"job": "1", "optimizer.lr": "a|b", "status": "failed", "error": "<no> memory"},
        ]
    )
    jobs["val/acc"] = [0.97, None]
    jobs["best_epoch"] = pd.Series([4, None], dtype="Int64")
    groups = pd.DataFrame([{"optimizer.lr": "0.1", "n": 2, "val/acc": 0.5, "val/acc std": None}])
    plot = metric_by_setting([("0.1", 0.97)], "data/augment")
    title = "Validation accuracy by data/augment"
    write_sweep_page(tmp_path, "sweep", "2 jobs.", True, jobs, groups, "seed", [(title, plot)])
    page = page_of(tmp_path, "sweep.html")
    text = text_of(page)
    assert f"Sweep {tmp_path.name} 2 jobs. Ranked by validation loss" in text
    assert "lr=0.1, <b> 0.1 completed 0.9700 4 1 a|b failed" in text
    assert "Job 1 failed: <no> memory" in text and "nan" not in text.lower()
    assert "Over seed" in text and "0.1 2 0.5000" in text
    assert 'href="lr%3D0.1%2C%20%3Cb%3E/report.html"' in page and 'http-equiv="refresh"' in page
    assert [path.name for path in (tmp_path / "plots").iterdir()] == [
        "validation_accuracy_by_data_augment.png"
    ]
    write_sweep_page(tmp_path, "search", "2 jobs.", False, jobs, None, "", [])
    page = page_of(tmp_path, "search.html")
    assert 'http-equiv="refresh"' not in page and "Over" not in page
