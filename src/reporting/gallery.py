"""Images in a report: the most confident misclassifications with heat maps, training samples."""

import base64
import io
import logging
import time
from typing import Any

import torch
from markupsafe import Markup
from torchvision.transforms.v2.functional import to_pil_image

from ..datamodules.base import ImageDataModule
from ..datamodules.compose import Compose
from ..datamodules.transforms import PerImage
from ..errors import UserError
from ..inference.ensemble import Ensemble
from ..runs.text import printable
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
        `note`, a sentence on how many there are, and `images`, what the page shows of at most 24.
    """
    predictions = task.evaluations[split].predictions
    wrong, total = misclassified(predictions), len(predictions.labels)
    shown = Predictions(*(column[:MAX_MISCLASSIFIED] for column in wrong))
    count = len(shown.labels)
    if not count:
        return {"note": f"None of {total:,} images.", "images": []}
    all_shown = count == len(wrong.labels)
    which = "the most confident first" if all_shown else f"here the {count} most confident"
    images = datamodule.images(split, shown.positions)
    heat_maps = _heat_maps(task, images, shown.predicted)
    items = [
        {
            "image": image_tag(images[i], task.classes[shown.predicted[i]]),
            "heat_map": image_tag(heat_maps[i], "Grad-CAM") if i < len(heat_maps) else None,
            "label": task.classes[shown.labels[i]],
            "label_probability": format_percent(float(shown.true_probability[i]), 2),
            "prediction": task.classes[shown.predicted[i]],
            "confidence": format_percent(float(shown.confidence[i]), 2),
            "name": f"image {name}" if name.isdigit() else name,
        }
        for i, name in enumerate(datamodule.names(split, shown.positions))
    ]
    return {"note": f"{len(wrong.labels):,} of {total:,} images, {which}.", "images": items}


def _heat_maps(
    task: ClassificationTask, images: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """uint8 (n, 3, H, W): Grad-CAM of the classes `targets` over the first n images.

    n is smaller where a large network would take too long, and 0 without feature maps.
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
    return overlay(to_rgb(images[: len(found)]), found)


def training_samples(datamodule: ImageDataModule) -> dict[str, Any]:
    """Some training images as the network receives them in training.

    Returns:
        `title`, which names the augmentation, and `images`: `image` (a tag) and `label`.
    """
    positions = torch.arange(min(MAX_SAMPLES, datamodule.sizes()["train"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = datamodule.augmented(positions)
    names = [datamodule.classes[label] for label in datamodule.labels("train")[positions]]
    items = [
        {"image": image_tag(image, name), "label": name}
        for image, name in zip(images, names, strict=True)
    ]
    return {"title": f"Training images, {_augmentation(datamodule)}", "images": items}


def _augmentation(datamodule: ImageDataModule) -> str:
    transform: Any = datamodule.augment
    parts = [transform] if transform else []
    if isinstance(transform, Compose):
        parts = transform.transforms
    names = [type(p.transform if isinstance(p, PerImage) else p).__name__ for p in parts]
    text = f"augmented by {', '.join(names)}" if parts else "without augmentation"
    mixing = {"MixUp": datamodule.mixup, "CutMix": datamodule.cutmix}
    mixed = " or ".join(name for name, alpha in mixing.items() if alpha)
    return f"{text}; then {mixed} within each batch" if mixed else text


def image_tag(image: torch.Tensor, text: str) -> Markup:
    """uint8 (C, H, W) -> an `<img>` element that contains the image."""
    thumbnail = to_pil_image(to_rgb(image[None])[0])
    small = max(thumbnail.size) <= PIXELATED_SIDE
    thumbnail.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    kind = "png" if small else "jpeg"
    thumbnail.save(buffer, kind, quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = printable(text)
    return Markup('<img src="data:image/{};base64,{}" class="{}" alt="{}" title="{}">').format(
        kind, data, "small" if small else "", text, text
    )
