"""Warnings about splits."""

import logging

import numpy as np
import pytest
import torch

from src.datamodules import ImageDataModule
from src.datamodules.split_checks import (
    count_equal,
    hint_at_balance,
    warn_of_missing_classes,
    warn_of_overlap,
)


class OwnValidation(ImageDataModule):
    classes = ["a", "b"]
    channels, native_size = 1, 8
    mean, std = (0.5,), (0.25,)
    same = False

    def load(self, split):
        seed = {"train": 0, "val": 1, "test": 1 if self.same else 2}[split]
        images = np.random.default_rng(seed).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
        return images, np.arange(20) % 2


def test_equal_images_are_counted():
    images = torch.arange(12).view(4, 1, 3).to(torch.uint8)
    assert count_equal(images[:3], images[2:]) == 1
    assert count_equal(images[:2], images[2:]) == 0


def test_a_validation_split_that_is_the_test_split(caplog):
    data = OwnValidation()
    data.setup("fit")
    assert not caplog.records
    data = OwnValidation()
    data.same = True
    data.setup("fit")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "20 of 20 test images are also val images" in record.message


def test_images_that_are_not_in_memory_or_too_many_are_not_compared(caplog, monkeypatch):
    labels = torch.zeros(2)
    images = torch.zeros(2, 1)
    warn_of_overlap({"train": (object(), labels), "val": (images, labels)})
    assert not caplog.records
    monkeypatch.setattr("src.datamodules.split_checks.MAX_BYTES", 1)
    warn_of_overlap({"train": (images, labels), "val": (images, labels)})
    assert not caplog.records


def test_a_test_split_that_is_the_training_data(caplog):
    data = OwnValidation()
    images = data.load("train")
    data.load = lambda split: None if split == "val" else images
    data.setup("fit")
    (record,) = caplog.records
    assert "20 of 20 test images are also train images" in record.message


def test_classes_without_training_images_are_named(caplog):
    names = dict(enumerate("abcd"))
    warn_of_missing_classes(torch.tensor([0, 1, 2, 0]), names)
    assert caplog.messages == ["2 of 4 classes have no training images: a, d. Labels count from 0."]
    caplog.clear()
    warn_of_missing_classes(torch.tensor([1, 1, 1, 1]), names)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([40, 4], "dog has 40 training images and cat has 4: data.balance=sampler"),
        ([39, 4], ""),
        ([40, 0], ""),
    ],
)
def test_classes_of_very_different_sizes(counts, said, caplog):
    hint_at_balance(torch.tensor(counts), {0: "dog", 1: "cat"})
    assert caplog.text.count("data.balance=loss") == bool(said) and said in caplog.text


def test_a_class_without_validation_images_is_named(caplog):
    data = OwnValidation()
    images, labels = data.load("val")
    own = data.load
    data.load = lambda split: (images, labels * 0) if split == "val" else own(split)
    data.setup("fit")
    assert "1 of 2 classes have no validation images: b." in caplog.text
