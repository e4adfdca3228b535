"""report.html: it shows this run's own figures, needs nothing from outside, escapes every name, and stays small."""

import html
import json
import re
from xml.etree import ElementTree

import lightning as L
import pytest
import torch
from conftest import run_training
from torch import nn

from src import charts, report
from src.datamodules import DigitsDataModule
from src.errors import UserError
from src.models import LeNet
from src.tasks import ClassificationTask

AWKWARD = ["<script>alert(1)</script>", "a=1,b", "(c) d", "猫和狗", "\"quoted\" & 'so'", "{{ 7 * 7 }}", "x" * 300, "7", "8", "9"]


def text_of(page: str) -> str:
    """What a reader sees: without tags and tooltips, blanks made one."""
    page = re.sub(r"<(style|title|head)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def measured(classes: list[str], model: nn.Module | None = None, **options) -> tuple[ClassificationTask, DigitsDataModule]:
    """A task with untrained weights, measured on the validation pictures of the digits."""
    torch.manual_seed(0)
    data = DigitsDataModule(image_size=16, **options)
    task = ClassificationTask(model or LeNet(1, len(classes), 16), classes, data.mean, data.std)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(task, data, verbose=False)
    return task, data


def test_the_report_shows_this_run(finished_run):
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    results = json.loads((finished_run / "results.json").read_text())
    text = text_of(page)
    assert "LeNet on Digits" in text and f"{100 * results['test']['acc']:.2f} %" in text
    wrong = round(360 * (1 - results["test"]["acc"]))
    assert f"{wrong} of 360 pictures" in text
    shown = re.findall(r"true <b>(\d)</b>.*?<br>said <b class=\"wrong\">(\d)</b>.*?<br>picture (\d+)<", page)
    rows = [line.split(",") for line in (finished_run / "mistakes.csv").read_text().splitlines()[1:]]
    assert [(true, said, picture) for picture, true, said, *_ in rows[: report.GALLERY]] == shown and shown
    for pair in results["test"]["most_confused"]:
        assert f"<td>{pair['true']}</td><td>{pair['predicted']}</td><td>{pair['count']}</td>" in page
    assert "optimizer" in text and "lr=0.05" in text and "images/s" in text and "no augmentation" in text
    assert page.count("<polyline") == 5  # loss and accuracy of train and val, learning rate
    assert page.count("data:image/png;base64,") >= 2 * len(shown) + report.SAMPLES  # each mistake beside its heat map


def test_the_page_needs_nothing_from_outside(finished_run):
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "url(" not in page and "@import" not in page
    assert "<script" not in page and "default-src 'none'" in page
    assert "width=device-width" in page and "prefers-color-scheme: dark" in page


def test_names_are_escaped(tmp_path):
    task, data = measured(AWKWARD)
    data.names = lambda split, positions: [f"<img src=x onerror=alert({i})>=,( 猫.png" for i in positions.tolist()]
    report.write_report(tmp_path, "<b>title</b>", task, data, "val")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and "<b>title" not in page
    text = text_of(page)
    for name in AWKWARD:
        assert name in text  # in the table of classes
    assert "<img src=x onerror=alert(" in text and ">=,( 猫.png" in text
    for chart in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(chart)


def test_many_classes_stay_readable_and_small(tmp_path):
    task, data = measured([f"class number {i}" for i in range(1000)])
    report.write_report(tmp_path, "", task, data, "val")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = text_of(page)
    assert "the 20 most confused of 1,000 classes" in text and "the worst of 1,000 classes" in text
    assert len(page) < 500_000
    assert page.count('text-anchor="end"') < 200
    # Classes without pictures tell nothing: those with pictures come first.
    assert {f"class number {i}" for i in range(10)} <= set(re.findall(r"class number \d+", text))


def test_a_network_without_feature_maps_has_no_heat_maps(tmp_path):
    task, data = measured(list("0123456789"), nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))
    report.write_report(tmp_path, "", task, data, "val")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "where the network looked" not in page and page.count("<figure>") == report.GALLERY + report.SAMPLES


def test_pictures_are_shown_as_training_sees_them(tmp_path):
    from torchvision.transforms import v2

    from src.datamodules.augment import CropFlip, PerImage

    for augment, name in ((CropFlip(2), "augmented by CropFlip"), (PerImage(v2.RandomInvert(p=1)), "augmented by RandomInvert")):
        task, data = measured(list("0123456789"), augment=augment)
        before = torch.get_rng_state()
        report.write_report(tmp_path, "", task, data, "val")
        assert name in text_of((tmp_path / "report.html").read_text()) and torch.equal(before, torch.get_rng_state())


def test_a_failed_run_has_a_report_too(tmp_path):
    with pytest.raises(UserError):
        run_training(tmp_path, "data.val_size=0.0001", "model=lenet")
    text = text_of((tmp_path / "report.html").read_text())
    assert "LeNet on Digits" in text and "failed" in text and "data.val_size=0.0001" in text


def test_a_report_that_fails_costs_no_run(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(report, "_findings", broken)
    results = run_training(tmp_path, "model=lenet", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.image_size=16")
    assert results["status"] == json.loads((tmp_path / "results.json").read_text())["status"] == "completed"
    assert not (tmp_path / "report.html").exists()


def test_charts_of_odd_values():
    for points in ([], [(1, 0.5)], [(1, float("nan")), (2, 1.0)], [(1, 0.0), (2, 0.0)], [(i, 1e9 * i) for i in range(2000)]):
        chart = charts.lines({"train": points, "val": points}, "Loss", mark=1)
        ElementTree.fromstring(chart)
        assert "nan" not in chart and len(chart) < 40_000
    assert charts.ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert charts.shorten("猫" * 10, 8) == "猫猫…猫" and charts.shorten("short", 8) == "short"
    ElementTree.fromstring(charts.standalone(charts.bars([{"class": "a<b", "recall": 0.5, "precision": 1.0, "support": 3}])))
