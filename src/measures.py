"""What the predictions on a split are worth, and where they go wrong. Functions of predictions alone: no network, no files."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from src.tasks.predictions import Predictions

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927): unlike the normal one it stays inside 0..1 and holds for few pictures."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    centre = share + Z_95**2 / (2 * total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    scale = 1 + Z_95**2 / total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def calibration(predictions: Predictions, bins: int = 15) -> list[dict[str, Any]]:
    """Mean confidence and accuracy of the pictures in each of `bins` equally wide stretches of confidence, `(low, high]` as in Guo et al.

    An empty stretch has None for both.
    """
    edges = torch.linspace(0, 1, bins + 1)
    index = (torch.bucketize(predictions.confidence, edges) - 1).clamp(0, bins - 1)
    count = torch.bincount(index, minlength=bins).tolist()
    confidence = torch.bincount(index, predictions.confidence.double(), bins).tolist()
    hits = torch.bincount(index, (predictions.predicted == predictions.labels).double(), bins).tolist()
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": n,
            "confidence": confidence[i] / n if n else None,
            "accuracy": hits[i] / n if n else None,
        }
        for i, n in enumerate(count)
    ]


def expected_calibration_error(rows: Sequence[dict[str, Any]]) -> float:
    """Mean distance of accuracy from confidence, by pictures (Guo et al., On Calibration of Modern Neural Networks, 2017).

    Args:
        rows: from `calibration`.
    """
    total = sum(row["count"] for row in rows)
    return sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["count"]) / max(total, 1)


def top_k(predictions: Predictions, num_classes: int) -> dict[str, float]:
    """`acc_top2`, `acc_top3`, ... up to 5: the share of pictures whose true class is among the k most probable ones; k < num_classes."""
    found = (predictions.likely == predictions.labels[:, None]).cumsum(1)
    largest = min(5, num_classes - 1)  # with all classes among them it says nothing
    return {f"acc_top{k}": int(found[:, k - 1].sum()) / max(len(found), 1) for k in range(2, largest + 1)}


def confused_pairs(classes: Sequence[str], confusion: torch.Tensor, most: int = 10) -> list[dict[str, Any]]:
    """The most frequent mistakes, as true class, predicted class, count and share of the true class's pictures."""
    mistakes = confusion.clone().fill_diagonal_(0).flatten()
    cells = mistakes.nonzero()[:, 0]  # few, however many classes there are
    cells = cells[mistakes[cells].sort(descending=True, stable=True).indices[:most]]
    support = confusion.sum(1)
    pairs = []
    for cell, count in zip(cells.tolist(), mistakes[cells].tolist(), strict=True):
        true, predicted = divmod(cell, len(classes))
        pairs.append({"true": classes[true], "predicted": classes[predicted], "count": count, "share": count / int(support[true])})
    return pairs


def most_confused_classes(confusion: torch.Tensor, most: int) -> list[int]:
    """The classes with the most mistakes from or to them, in the order of the classes."""
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    return mistakes.sort(descending=True, stable=True).indices[:most].sort().values.tolist()


def mistakes(predictions: Predictions) -> Predictions:
    """The wrong ones among them, the most confident first."""
    wrong = (predictions.predicted != predictions.labels).nonzero()[:, 0]
    order = predictions.confidence[wrong].sort(descending=True, stable=True).indices
    return Predictions(*(column[wrong[order]] for column in predictions))


def trust(predictions: Predictions, confusion: torch.Tensor) -> dict[str, float]:
    """The figures that stand beside loss and accuracy: top-k accuracies, the accuracy's 95 % interval, calibration error."""
    low, high = wilson_interval(int(confusion.diagonal().sum()), int(confusion.sum()))
    return {
        **top_k(predictions, len(confusion)),
        "acc_low": low,
        "acc_high": high,
        "ece": expected_calibration_error(calibration(predictions)),
    }
