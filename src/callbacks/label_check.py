"""Labels that are probably wrong: those that a head fitted on the other images finds unlikely."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from ..datamodules.base import ImageDataModule
from ..runs.files import write_csv
from .logistic_head import LogisticHead

MAX_SHOWN = 100  # images on the page


class LabelledImage(NamedTuple):
    """An image and its label, as they are in `suspect_labels.csv`."""

    image: str
    split: str
    position: int  # in the split, in the order of its evaluation
    label: str
    prediction: str
    label_probability: float


class LabelCheck(LogisticHead):
    """Fits the head as `LogisticHead` does and lists all images, the most suspect labels first.

    Images are ranked by the probability of their label in cross-validation (self-confidence,
    Northcutt et al., Confident Learning, 2021). `suspect_labels.csv` holds all training and
    validation images, `suspect_labels.html` shows the first; they are written into the trainer's
    root folder. No label is changed.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_fit_start(trainer, pl_module)
        if trainer.is_global_zero and not trainer.fast_dev_run:
            data: Any = trainer.datamodule
            images = rank(data, pl_module.classes, self.out_of_fold)
            write_suspects(Path(trainer.default_root_dir), data, images)


def rank(
    data: ImageDataModule, classes: Sequence[str], probabilities: torch.Tensor
) -> list[LabelledImage]:
    """All training and validation images, by the probability of their label.

    Args:
        probabilities: (N, num_classes) of the images of `train`, then those of `val`.
    """
    images: list[LabelledImage] = []
    for split in ("train", "val"):
        labels = data.labels(split)
        positions = torch.arange(len(labels))
        names = data.names(split, positions)
        rows = probabilities[len(images) : len(images) + len(labels)]
        of_label = rows.gather(1, labels[:, None])[:, 0].tolist()
        for i, (label, predicted) in enumerate(zip(labels, rows.argmax(1), strict=True)):
            words = classes[int(label)], classes[int(predicted)]
            images.append(LabelledImage(names[i], split, i, *words, of_label[i]))
    return sorted(images, key=lambda image: image.label_probability)


def write_suspects(folder: Path, data: ImageDataModule, images: Sequence[LabelledImage]) -> None:
    """Write `suspect_labels.csv`, and `suspect_labels.html` with the first images."""
    from ..reporting.gallery import image_tag
    from ..reporting.html import render

    write_csv(folder / "suspect_labels.csv", LabelledImage._fields, images)
    tags = [
        image_tag(data.images(image.split, torch.tensor([image.position]))[0], image.image)
        for image in images[:MAX_SHOWN]
    ]
    page = {
        "title": f"Suspect labels of {folder.name}",
        "items": list(zip(tags, images, strict=False)),
        "total": len(images),
        "contradicted": sum(image.prediction != image.label for image in images),
    }
    render(folder / "suspect_labels.html", "suspect_labels.html.jinja", page)
