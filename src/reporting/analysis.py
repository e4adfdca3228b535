"""Metrics and tables from the predictions on a split and its confusion matrix."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.stats import binomtest

from ..runs import RunFolder
from ..runs.text import printable
from ..tasks.metrics import Evaluation, Predictions
from .text import render_table

log = logging.getLogger(__name__)
FEW = 30  # images of a class below which its accuracy is hardly known
NUM_BINS = 15  # of confidence, as in most papers on calibration

Row = dict[str, Any]


def per_class(classes: Sequence[str], confusion: torch.Tensor) -> list[Row]:
    """Support, precision, recall (the accuracy of the class) and F1 score of each class.

    All three are None for a class without images. Precision is 0 for a class that is never
    predicted, as in scikit-learn.

    Args:
        confusion: int64 (num_classes, num_classes), numbers of images by (true, predicted) class.
    """
    counts = torch.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)], 1)
    return [
        {
            "class": name,
            "support": support,
            "precision": correct / max(predicted, 1) if support else None,
            "recall": correct / support if support else None,
            "f1": 2 * correct / (support + predicted) if support else None,
        }
        for name, (correct, support, predicted) in zip(classes, counts.tolist(), strict=True)
    ]


def format_table(rows: Sequence[Row]) -> str:
    """The rows of `per_class` as text for the console."""
    columns = ["class", "images", "precision", "recall", "f1"]
    return render_table(columns, (list(row.values()) for row in rows))


def few_images(split: str, classes: Sequence[str], confusion: torch.Tensor) -> str:
    """A sentence that names classes with less than `FEW` images in a split; empty without any."""
    rows = zip(confusion.sum(1).tolist(), classes, strict=True)
    few = sorted((row for row in rows if row[0] < FEW), key=lambda row: row[0])
    if not few:
        return ""
    shown = ", ".join(f"{name} {count}" for count, name in few[:5])
    more = f" and {len(few) - 5:,} more classes" if len(few) > 5 else ""
    return f"Fewer than {FEW} {split} images of {shown}{more}: their accuracies are uncertain."


def log_classes(split: str, classes: Sequence[str], evaluation: Evaluation) -> None:
    """Log the table of classes, and a warning where it rests on few images."""
    log.info("%s", format_table(per_class(classes, evaluation.confusion)))
    warning = few_images(split, classes, evaluation.confusion)
    if warning:
        log.warning("%s", printable(warning))


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy (Wilson, 1927), within 0..1 for few images."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def calibration_bins(predictions: Predictions) -> list[Row]:
    """Mean confidence and accuracy of the images in each of 15 equally wide bins of confidence.

    A bin is the interval (low, high], as in Guo et al. (On Calibration of Modern Neural Networks,
    2017); torchmetrics takes [low, high). Both values are None for an empty bin.
    """
    edges = torch.linspace(0, 1, NUM_BINS + 1)
    index = (torch.bucketize(predictions.confidence, edges) - 1).clamp(0, NUM_BINS - 1)
    correct = (predictions.predicted == predictions.labels).double()
    counts = torch.bincount(index, minlength=NUM_BINS)
    confidence = torch.bincount(index, predictions.confidence.double(), NUM_BINS) / counts
    accuracy = torch.bincount(index, correct, NUM_BINS) / counts
    return [
        {
            "low": i / NUM_BINS,
            "high": (i + 1) / NUM_BINS,
            "count": count,
            "confidence": confidence[i].item() if count else None,
            "accuracy": accuracy[i].item() if count else None,
        }
        for i, count in enumerate(counts.tolist())
    ]


def expected_calibration_error(bins: Sequence[Row]) -> float:
    """Mean distance of accuracy from confidence, weighted by the images in a bin (Guo et al.)."""
    filled = [row for row in bins if row["count"]]
    distances = [row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled]
    return sum(distances) / sum(row["count"] for row in filled)


def topk_accuracies(predictions: Predictions, num_classes: int) -> dict[str, float]:
    """`acc_top2` to at most `acc_top5`: fractions of images with their class among the top k."""
    found = (predictions.topk == predictions.labels[:, None]).cumsum(1)
    ks = range(2, min(6, num_classes))  # among all classes, every class is found
    return {f"acc_top{k}": int(found[:, k - 1].sum()) / len(found) for k in ks}


def summary_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics of an evaluation, top-k accuracies, the interval of the accuracy, and the ECE.

    The balanced accuracy is None where a class has no images.
    """
    confusion, predictions = evaluation.confusion, evaluation.predictions
    low, high = wilson_interval(int(confusion.diagonal().sum()), int(confusion.sum()))
    balanced = evaluation.metrics["acc_balanced"]
    return {
        **evaluation.metrics,
        "acc_balanced": None if math.isnan(balanced) else balanced,
        **topk_accuracies(predictions, len(confusion)),
        "acc_low": low,
        "acc_high": high,
        "ece": expected_calibration_error(calibration_bins(predictions)),
    }


def confused_pairs(classes: Sequence[str], confusion: torch.Tensor, limit: int = 10) -> list[Row]:
    """The most frequent misclassifications, each with its fraction of the images of its class."""
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    cells = wrong.nonzero()[:, 0]  # few, however many classes there are
    cells = cells[wrong[cells].sort(descending=True, stable=True).indices[:limit]]
    support = confusion.sum(1).tolist()
    pairs = []
    for cell, count in zip(cells.tolist(), wrong[cells].tolist(), strict=True):
        true, predicted = divmod(cell, len(classes))
        pair = {"true": classes[true], "predicted": classes[predicted]}
        pairs.append(pair | {"count": count, "fraction": count / support[true]})
    return pairs


def most_confused_classes(confusion: torch.Tensor, limit: int) -> list[int]:
    """The classes with the most misclassifications from or to them, in the order of the classes."""
    wrong = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    return wrong.sort(descending=True, stable=True).indices[:limit].sort().values.tolist()


def class_metrics(classes: Sequence[str], confusion: torch.Tensor) -> dict[str, Any]:
    """The accuracy of each class and the most frequent misclassifications, for results.json."""
    return {
        "per_class": {row["class"]: row["recall"] for row in per_class(classes, confusion)},
        "most_confused": confused_pairs(classes, confusion),
    }


def misclassified(predictions: Predictions) -> Predictions:
    """The wrong predictions, the most confident first."""
    wrong = (predictions.predicted != predictions.labels).nonzero()[:, 0]
    order = predictions.confidence[wrong].sort(descending=True, stable=True).indices
    return Predictions(*(column[wrong[order]] for column in predictions))


def write_tables(
    run: RunFolder,
    split: str,
    classes: Sequence[str],
    evaluation: Evaluation,
    names: Callable[[torch.Tensor], list[str]],
) -> None:
    """Write per_class.csv, confusion.csv, calibration.csv, misclassified.csv and predictions.csv.

    `names` gives the names of the images at int64 positions of the split.
    """

    def write_images(file: str, shown: Predictions, header: list[str], *columns: list) -> None:
        header = ["image", "label", "prediction", *header]
        labels, predicted = (
            [classes[i] for i in column.tolist()] for column in (shown.labels, shown.predicted)
        )
        rows = zip(names(shown.positions), labels, predicted, *columns, strict=True)
        run.write_csv(file, header, rows)

    confusion, predictions = evaluation.confusion, evaluation.predictions
    rows = per_class(classes, confusion)
    run.write_csv("per_class.csv", ["split", *rows[0]], ([split, *row.values()] for row in rows))
    counts = zip(classes, confusion.tolist(), strict=True)
    run.write_csv("confusion.csv", ["label / prediction", *classes], ([n, *c] for n, c in counts))
    bins = calibration_bins(predictions)
    run.write_csv("calibration.csv", list(bins[0]), (list(row.values()) for row in bins))
    wrong = misclassified(predictions)
    columns = wrong.confidence.tolist(), wrong.true_probability.tolist()
    write_images("misclassified.csv", wrong, ["confidence", "label_probability"], *columns)
    columns = predictions.confidence.tolist(), predictions.true_probability.tolist()
    write_images("predictions.csv", predictions, ["probability", "label_probability"], *columns)
