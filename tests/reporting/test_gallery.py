"""Images of a report: misclassified ones with heat maps, and training samples as augmented."""

import base64
import io
import re

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from src.datamodules import CropFlip, PerImage
from src.inference import Ensemble
from src.reporting import gallery

DIGITS = list("0123456789")


def pixels_of(tag: str) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", tag)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_misclassified_images_are_those_of_the_data(evaluated):
    task, data = evaluated(DIGITS)
    found = gallery.misclassified_gallery(task, data, "val")
    confidences = [float(item["confidence"].split()[0]) for item in found["images"]]
    assert len(found["images"]) == 24 and confidences == sorted(confidences, reverse=True)
    predictions = task.evaluations["val"].predictions
    wrong = predictions.predicted != predictions.labels
    position = int((predictions.confidence * wrong).argmax())
    first = found["images"][0]
    assert first["prediction"] == DIGITS[predictions.predicted[position]]
    assert first["label"] == DIGITS[predictions.labels[position]]
    assert first["name"] == f"image {data.names('val', torch.tensor([position]))[0]}"
    image = data.images("val", torch.tensor([position]))[0, 0].numpy()
    assert np.array_equal(pixels_of(first["image"])[..., 0], image)
    assert all(pixels_of(item["heat_map"]).shape == (16, 16, 3) for item in found["images"])


def test_networks_without_feature_maps_and_ensembles_have_no_heat_maps(evaluated):
    task, data = evaluated(DIGITS, nn.Sequential(nn.Flatten(), nn.Linear(256, 10)))
    found = gallery.misclassified_gallery(task, data, "val")["images"]
    assert found and all(item["heat_map"] is None for item in found)
    task.model = Ensemble([], DIGITS, flip=False)
    found = gallery.misclassified_gallery(task, data, "val")["images"]
    assert found and all(item["heat_map"] is None for item in found)


def test_heat_maps_stop_after_a_time_limit(evaluated, monkeypatch):
    task, data = evaluated(DIGITS)
    monkeypatch.setattr(gallery, "HEAT_MAP_SECONDS", -1)
    found = gallery.misclassified_gallery(task, data, "val")["images"]
    assert len(found) == 24 and not any(item["heat_map"] for item in found)


def test_a_perfect_network_has_an_empty_gallery(evaluated, evaluation):
    task, data = evaluated(DIGITS)
    labels = data.labels("val")
    task.evaluations["val"] = evaluation(nn.functional.one_hot(labels, 10).float(), labels)
    found = gallery.misclassified_gallery(task, data, "val")
    assert found == {"note": f"None of {len(labels)} images.", "images": []}


def test_training_samples_are_augmented_as_in_training(evaluated):
    for augment, name in (
        (None, "without augmentation"),
        (CropFlip(2), "augmented by CropFlip"),
        (PerImage(v2.RandomInvert(p=1)), "augmented by RandomInvert"),
    ):
        _, data = evaluated(DIGITS, augment=augment, mixup=0.2)
        before = torch.get_rng_state()
        samples = gallery.training_samples(data)
        assert torch.equal(before, torch.get_rng_state())
        assert samples["title"] == f"Training images, {name}; then MixUp within each batch"
        labels = [DIGITS[i] for i in data.labels("train")[:16].tolist()]
        assert [item["label"] for item in samples["images"]] == labels
    inverted = 255 - data.images("train", torch.tensor([0]))[0, 0].numpy()
    assert np.array_equal(pixels_of(samples["images"][0]["image"])[..., 0], inverted)


def test_large_images_are_reduced_and_names_escaped():
    tag = gallery.image_tag(torch.zeros(3, 300, 200, dtype=torch.uint8), '"><script>')
    assert pixels_of(tag).shape == (160, 107, 3) and "<script>" not in tag
