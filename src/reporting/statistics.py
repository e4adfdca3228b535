"""Statistics for the comparison of trained classifiers: tests, intervals and corrections."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 1000
METRICS = ("acc", "acc_balanced", "f1", "log_loss")
MIN_PROBABILITY = 1e-7  # the resolution of float32 near 1: log(0) would decide everything


class Predictions(NamedTuple):
    """What a network predicted for the N images of a split; classes are numbers from 0."""

    labels: np.ndarray  # int (N,)
    predicted: np.ndarray  # int (N,)
    label_probability: np.ndarray  # float (N,), of the true class


def measure(predictions: Predictions, weights: np.ndarray | None = None) -> np.ndarray:
    """The values of `METRICS`: accuracy, balanced accuracy, macro F1, negative log-likelihood.

    Args:
        weights: how often each image counts, (N,); None: once.
    """
    labels, predicted, probability = predictions
    weights = np.ones(len(labels)) if weights is None else weights
    correct = weights * (labels == predicted)
    size = max(labels.max(), predicted.max()) + 1
    hits, support, chosen = (
        np.bincount(classes, values, size)
        for classes, values in ((labels, correct), (labels, weights), (predicted, weights))
    )
    known = support > 0
    recall = hits[known] / support[known]
    f1 = 2 * hits[known] / (support + chosen)[known]
    losses = -np.log(np.maximum(probability, MIN_PROBABILITY))
    accuracy = correct.sum() / weights.sum()
    return np.array([accuracy, recall.mean(), f1.mean(), np.average(losses, weights=weights)])


def bootstrap_differences(
    first: Sequence[Predictions], second: Sequence[Predictions], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Differences of the metrics, second minus first, with intervals over the images.

    The same images are drawn for both (paired percentile bootstrap; Efron & Tibshirani, 1993).
    With several networks on a side, the metrics are their means.

    Returns:
        For each metric `difference`, and `low` and `high` of its 95 % interval.
    """
    generator = np.random.default_rng(seed)
    count = len(first[0].labels)

    def differences(weights: np.ndarray | None) -> np.ndarray:
        means = [np.mean([measure(p, weights) for p in side], 0) for side in (first, second)]
        return means[1] - means[0]

    resampled = [
        differences(np.bincount(generator.integers(0, count, count), minlength=count))
        for _ in range(RESAMPLES)
    ]
    rows = zip(differences(None), *np.quantile(resampled, (0.025, 0.975), axis=0), strict=True)
    keys = ("difference", "low", "high")
    return {
        name: dict(zip(keys, map(float, row), strict=True))
        for name, row in zip(METRICS, rows, strict=True)
    }


def mcnemar(first: Predictions, second: Predictions) -> dict[str, Any]:
    """McNemar's exact test (1947) on the images that one of two networks classifies correctly.

    Returns:
        `only_first` and `only_second`, the numbers of such images, and the two-sided `p`.
    """
    correct = [p.labels == p.predicted for p in (first, second)]
    only = [int((a & ~b).sum()) for a, b in (correct, correct[::-1])]
    p = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    return {"only_first": only[0], "only_second": only[1], "p": float(p)}


def compare_seeds(first: Sequence[float], second: Sequence[float], paired: bool) -> dict[str, Any]:
    """Compare a metric of two settings over repetitions with other seeds, two-sided.

    Args:
        first: values of one setting, at least two.
        second: values of the other one, of the same seeds in the same order where `paired`.

    Returns:
        `test` (paired t-test, or Welch's t-test), `difference` (second minus first), `std` of the
        paired differences, `low` and `high` of the 95 % interval, and `p`; both are None where
        the values do not vary.
    """
    difference = float(np.mean(second) - np.mean(first))
    std = float(np.std(np.subtract(second, first), ddof=1)) if paired else None
    spread = std if paired else np.std(first, ddof=1) + np.std(second, ddof=1)
    found: dict[str, Any] = {"test": "paired t-test" if paired else "Welch's t-test"}
    found |= {"difference": difference, "std": std, "low": None, "high": None, "p": None}
    if not spread:
        return found
    result = (
        stats.ttest_rel(second, first)
        if paired
        else stats.ttest_ind(second, first, equal_var=False)
    )
    interval = result.confidence_interval(0.95)
    ends = {"low": float(interval.low), "high": float(interval.high)}
    return found | ends | {"p": float(result.pvalue)}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979): the family-wise error stays below alpha."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(np.sort(p_values) * factors), 1)
    return [float(value) for value in corrected[np.argsort(order)]]
