"""Images in a report: the most confident misclassifications with heat maps, training samples."""

import base64
import io
import logging
import time
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image

from ..datamodules.base import ImageDataModule
from ..datamodules.transforms import PerImage
from ..errors import UserError
from ..inference.ensemble import Ensemble
from ..tasks.classification import ClassificationTask
from ..tasks.metrics import Predictions
from .analysis import misclassified
from .grad_cam import grad_cam, overlay
from .image_grid import to_rgb
from .text import format_percent

log = logging.getLogger(__name__)
MAX_MISCLASSIFIED = 24
MAX_SAMPLES = 16
MAX_SIDE = 160  # pixels of an image on the page
PIXELATED_SIDE = 48  # up to this side an image is enlarged without smoothing
HEAT_MAP_BATCH = 4
HEAT_MAP_SECONDS = 2.0  # after which no further batch of heat maps is computed


def misclassified_gallery(
    task: ClassificationTask, datamodule: ImageDataModule, split: str
) -> dict[str, Any]:
    """The misclassified images of a split, the most confident first.

    Returns:
        `note`, a sentence on how many there are, and `images`: for each of at most 24 its `image`
        and `heat_map` (tags, the latter may be None), `label`, `prediction` and their
        probabilities, and `name`.
    """
    predictions = task.evaluations[split].predictions
    wrong, total = misclassified(predictions), len(predictions.labels)
    shown = Predictions(*(column[:MAX_MISCLASSIFIED] for column in wrong))
    count = len(shown.labels)
    if not count:
        return {"note": f"None of {total:,} images.", "images": []}
    which = "the most confident first"
    if count < len(wrong.labels):
        which = f"here the {count} most confident"
    images = datamodule.images(split, shown.positions)
    heat_maps = _heat_maps(task, images, shown.predicted)
    items = []
    for i, name in enumerate(datamodule.names(split, shown.positions)):
        prediction = task.classes[int(shown.predicted[i])]
        item = {
            "image": image_tag(images[i], prediction),
            "heat_map": image_tag(heat_maps[i], "Grad-CAM") if i < len(heat_maps) else None,
            "label": task.classes[int(shown.labels[i])],
            "label_probability": format_percent(float(shown.true_probability[i]), 2),
            "prediction": prediction,
            "confidence": format_percent(float(shown.confidence[i]), 2),
            "name": f"image {name}" if name.isdigit() else name,
        }
        items.append(item)
    return {"note": f"{len(wrong.labels):,} of {total:,} images, {which}.", "images": items}


def _heat_maps(
    task: ClassificationTask, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """uint8 (n, 3, H, W): Grad-CAM of the classes `targets` over the first n images.

    n is smaller than the number of images where a large network would take too long, and 0 for a
    network without feature maps.
    """
    maps = [torch.empty(0, *images.shape[2:])]
    start = time.monotonic()
    batches = zip(images.split(HEAT_MAP_BATCH), targets.split(HEAT_MAP_BATCH), strict=True)
    try:
        for batch, classes in batches:
            if isinstance(task.model, Ensemble) or time.monotonic() - start > HEAT_MAP_SECONDS:
                break
            inputs = task.normalize(batch.to(task.device))
            maps.append(grad_cam(task.model, inputs, classes.to(task.device)).cpu())
    except UserError as error:
        log.debug("No heat maps: %s", error.problem)
    found = torch.cat(maps)
    return overlay(to_rgb(images[: len(found)]), found) if len(found) else images[:0]


def training_samples(datamodule: ImageDataModule) -> dict[str, Any]:
    """Some training images as the network receives them in training.

    Returns:
        `title`, which names the augmentation, and `images`: `image` (a tag) and `label`.
    """
    positions = torch.arange(min(MAX_SAMPLES, datamodule.sizes()["train"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = datamodule.augmented(positions)
    labels = datamodule.labels("train")[positions].tolist()
    names = [datamodule.classes[label] for label in labels]
    items = [
        {"image": image_tag(image, name), "label": name}
        for image, name in zip(images, names, strict=True)
    ]
    return {"title": f"Training images, {_augmentation(datamodule)}", "images": items}


def _augmentation(datamodule: ImageDataModule) -> str:
    transform: Any = datamodule.augment
    if isinstance(transform, PerImage):
        transform = transform.transform
    augmented = f"augmented by {type(transform).__name__}"
    text = "without augmentation" if transform is None else augmented
    mixing = {"MixUp": datamodule.mixup, "CutMix": datamodule.cutmix}
    names = " or ".join(name for name, alpha in mixing.items() if alpha)
    return f"{text}; then {names} within each batch" if names else text


def image_tag(image: torch.Tensor, text: str) -> Markup:
    """uint8 (C, H, W) -> an `<img>` element that contains the image."""
    thumbnail = Image.fromarray(to_rgb(image[None])[0].permute(1, 2, 0).contiguous().numpy())
    small = max(thumbnail.size) <= PIXELATED_SIDE
    thumbnail.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    kind = "png" if small else "jpeg"
    thumbnail.save(buffer, kind, quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img src="data:image/{};base64,{}" class="{}" alt="{}" title="{}">').format(
        kind, data, "small" if small else "", text, text
    )
