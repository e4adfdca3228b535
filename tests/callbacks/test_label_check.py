"""Suspect labels: swapped ones come first, the page shows them."""

import csv

import torch

from src.callbacks import LabelCheck
from src.datamodules import DigitsDataModule


def test_swapped_labels_come_first(fit, tmp_path):
    data = DigitsDataModule(image_size=16, val_size=0.5)
    images, labels = data.load("train")
    chosen = torch.cat([(labels == label).nonzero()[:20, 0] for label in range(3)])
    images, labels = images[chosen], labels[chosen].clone()
    data.classes = ["zero", "one", "two"]
    swapped = [3, 25, 47]
    labels[swapped] = (labels[swapped] + 1) % 3
    data.load = lambda split: (images, labels) if split == "train" else None
    fit(LabelCheck(tmp_path), data=data)
    with open(tmp_path / "suspect_labels.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["image"]) for row in rows) == list(range(60))
    assert set(swapped) <= {int(row["image"]) for row in rows[:6]}
    for row in rows:
        assert data.classes.index(row["label"]) == labels[int(row["image"])]
    probabilities = torch.tensor([float(row["label_probability"]) for row in rows])
    assert torch.equal(probabilities, probabilities.sort().values)
    page = (tmp_path / "suspect_labels.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 60 and "of 60 labels" in page
