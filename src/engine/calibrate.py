"""Measuring on validation images how far the predictions of a checkpoint can be trusted."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from ..datamodules import ImageDataModule
from ..inference.calibration import (
    Calibration,
    KnownImages,
    features_and_logits,
    linear_head,
    read_calibration,
)
from ..inference.classifier import Classifier, batch_size, build_network
from ..reporting.analysis import wilson_interval
from ..runs import checkpoint
from ..runs.checkpoint_file import save

log = logging.getLogger(__name__)

KEPT = 0.95  # fraction of the known images that are not called unknown
MAX_KNOWN = 2000  # training images whose features are stored, at most ...
MAX_VALUES = 8_000_000  # ... with this many values, which are 16 MB
FOLDS = 5
QUANTILES = 101  # of the confidence, from 0 to 100 %
COVERAGES = (1.0, 0.95, 0.9, 0.8)  # that are shown


@torch.inference_mode()
def calibrate(path: Path, data: ImageDataModule, device: torch.device) -> dict[str, Any]:
    """Measure the network of a checkpoint and store the `Calibration` in its file.

    Args:
        path: the checkpoint, which is replaced whole; an earlier calibration is dropped.
        data: of its training, with its split.

    Returns:
        What was measured, for `results.json`.
    """
    content = {key: value for key, value in checkpoint.read(path).items() if key != "calibration"}
    net = Classifier(build_network(content), content["description"]).eval().to(device)
    data.setup("fit")
    labels = data.labels("val")
    features, logits = _outputs(net, data, "val", len(labels))
    temperature, measured = fit_temperature(logits.double(), labels)
    probabilities = (logits.double() / temperature).softmax(1)
    confidences = probabilities.max(1).values
    quantiles = np.quantile(confidences.numpy(), np.linspace(0, 1, QUANTILES)).clip(0, 1).tolist()
    known = None if features is None else _fit_known(net, data, features)
    calibration = Calibration(temperature, quantiles, known)
    stored = {**content, "calibration": calibration.to_plain()}
    read_calibration(stored)  # a network that gives NaN is not worth a file that cannot be read
    save(stored, path)
    measured |= {
        "images": len(labels),
        "coverage": _coverages(calibration, confidences, probabilities.argmax(1) == labels),
        "known_images": 0 if known is None else len(known.features),
    }
    _log(measured)
    log.info("Stored in %s", path)
    return measured


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, dict[str, Any]]:
    """Fit one temperature for all logits, or return 1 where it does not help.

    Method: Guo et al., On Calibration of Modern Neural Networks, 2017. It counts as a help if it
    lowers the loss of images that it was not fitted on (cross-validation) by more than one standard
    error.

    Args:
        logits: float64 (N, num_classes).
        labels: int64 (N,).

    Returns:
        The temperature, and what was measured.
    """
    before = F.cross_entropy(logits, labels, reduction="none")
    folds = torch.arange(len(labels)) % FOLDS
    after = torch.empty_like(before)
    for fold in range(min(FOLDS, len(labels))):
        own, others = folds == fold, folds != fold
        scaled = logits[own] / _best_temperature(logits[others], labels[others])
        after[own] = F.cross_entropy(scaled, labels[own], reduction="none")
    gain = before - after
    error = float(gain.std(correction=0)) / math.sqrt(len(gain))
    fitted = _best_temperature(logits, labels)
    is_better = float(gain.mean()) > error
    return (fitted if is_better else 1.0), {
        "temperature": fitted if is_better else 1.0,
        "fitted_temperature": fitted,
        "loss": float(before.mean()),
        "cross_validated_loss": float(after.mean()),
        "standard_error_of_difference": error,
    }


def _best_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature of the lowest loss; 1 where every image is right, and none is the lowest."""
    if bool((logits.argmax(1) == labels).all()):
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    found = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded")
    return math.exp(found.x)


def _outputs(
    net: Classifier, data: ImageDataModule, split: str, count: int
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Features (N, D), where the network ends in a linear layer, and logits of the first images."""
    device, head = net.mean.device, linear_head(net)
    all_features, all_logits = [], []
    for positions in torch.arange(count).split(batch_size(net.image_size or 1, device)):
        images = data.images(split, positions).to(device)
        if head is not None:
            features, logits = features_and_logits(net, images)
            all_features.append(features.cpu())
            head = head if _ends_with(head, features, logits) else None
        else:
            logits = net(images)
        all_logits.append(logits.cpu())
    return (torch.cat(all_features) if head is not None else None), torch.cat(all_logits)


def _ends_with(head: torch.nn.Linear, features: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether a layer takes one vector per image and nothing follows it."""
    if features.ndim != 2:
        return False
    return torch.allclose(head(features), logits, rtol=1e-3, atol=1e-4)


def _fit_known(net: Classifier, data: ImageDataModule, features: torch.Tensor) -> KnownImages:
    """Keep the features of some training images; `features` are those of the validation images.

    The threshold is that of conformal prediction: it keeps at least `KEPT` of new images of the
    same kind, on average over draws of the validation images.
    """
    count = min(data.sizes()["train"], MAX_KNOWN, MAX_VALUES // features.shape[1])
    stored, _ = _outputs(net, data, "train", count)  # the split is shuffled: a random part
    assert stored is not None
    stored = KnownImages(stored).features.half()  # as the checkpoint holds them
    distances = KnownImages(stored)(features).sort().values
    rank = min(math.ceil(KEPT * (len(distances) + 1)), len(distances))
    return KnownImages(stored, max(float(distances[rank - 1]), 1e-6))


def _coverages(
    calibration: Calibration, confidences: torch.Tensor, is_correct: torch.Tensor
) -> list[dict[str, float]]:
    rows = []
    for coverage in COVERAGES:
        threshold = calibration.threshold(coverage)
        answered = is_correct[confidences >= threshold]
        low, high = wilson_interval(int(answered.sum()), len(answered))
        values = {"threshold": threshold, "answered": len(answered), "correct": int(answered.sum())}
        rows.append({"coverage": coverage, **values, "acc_low": low, "acc_high": high})
    return rows


def _log(measured: dict[str, Any]) -> None:
    is_used = measured["temperature"] != 1
    log.info(
        "%s: validation loss %.4f without, %.4f with one fitted on other images (standard error "
        "of the difference: %.4f)",
        f"Temperature {measured['temperature']:.3f}" if is_used else "No temperature",
        measured["loss"],
        measured["cross_validated_loss"],
        measured["standard_error_of_difference"],
    )
    for row in measured["coverage"]:
        log.info(
            "coverage=%g: threshold %.4f, answers %d of %d, accuracy %.4f (95 %%: %.4f to %.4f)",
            *(row["coverage"], row["threshold"], row["answered"], measured["images"]),
            *(row["correct"] / row["answered"], row["acc_low"], row["acc_high"]),
        )
    if measured["known_images"]:
        count = f"{measured['known_images']:,}"
        log.info("Unknown images: by their distance from %s training images", count)
    else:
        log.info("Unknown images: not recognized, since the network ends in no linear layer")
