"""Statistics of comparisons, against values from books, scipy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from src.reporting.statistics import (
    METRICS,
    Predictions,
    bootstrap_differences,
    compare_seeds,
    holm,
    mcnemar,
    measure,
)


def predictions(correct: list[bool], classes: int = 3) -> Predictions:
    """Images of classes in turn, with these outcomes."""
    labels = np.arange(len(correct)) % classes
    right = np.array(correct)
    predicted = np.where(right, labels, (labels + 1) % classes)
    return Predictions(labels, predicted, np.where(right, 0.8, 0.1))


def random_predictions(accuracy: float, count: int = 400, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    return predictions((generator.random(count) < accuracy).tolist())


def test_metrics_are_those_of_scikit_learn():
    found = random_predictions(0.7)
    labels, predicted, probability = found
    expected = [
        metrics.accuracy_score(labels, predicted),
        metrics.balanced_accuracy_score(labels, predicted),
        metrics.f1_score(labels, predicted, average="macro"),
        -np.log(probability).mean(),
    ]
    assert measure(found) == pytest.approx(expected)
    rows = np.random.default_rng(1).integers(0, 400, 400)
    drawn = Predictions(labels[rows], predicted[rows], probability[rows])
    assert measure(found, np.bincount(rows, minlength=400)) == pytest.approx(measure(drawn))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(2, 10, 0.0385742), (0, 5, 0.0625), (6, 6, 1.0), (0, 0, 1.0), (12, 37, 0.000470)],
)
def test_mcnemar_has_the_exact_binomial_probability(only_first, only_second, p):
    both = 20
    first = predictions([True] * (both + only_first) + [False] * only_second)
    second = predictions([True] * both + [False] * only_first + [True] * only_second)
    found = mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == (only_first, only_second)
    assert found["p"] == pytest.approx(p, rel=1e-3)


def test_holm_corrects_for_the_number_of_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_seeds_are_compared_in_pairs():
    first, second = [0.90, 0.92, 0.91], [0.93, 0.94, 0.935]
    found = compare_seeds(first, second, paired=True)
    assert found["p"] == pytest.approx(stats.ttest_1samp(np.subtract(second, first), 0).pvalue)
    assert found["low"] < found["difference"] < found["high"]
    assert found["difference"] == pytest.approx(0.025)
    half = stats.t.ppf(0.975, 2) * found["std"] / np.sqrt(3)
    assert found["high"] - found["difference"] == pytest.approx(half)
    welch = compare_seeds(first, [0.93, 0.94], paired=False)
    assert welch["p"] == pytest.approx(stats.ttest_ind([0.93, 0.94], first, equal_var=False).pvalue)
    assert compare_seeds([0.9, 0.9], [0.9, 0.9], paired=True)["p"] is None


def test_intervals_over_images_have_the_width_of_the_standard_error():
    first, second = random_predictions(0.7), random_predictions(0.8, seed=5)
    found = bootstrap_differences([first], [second])
    assert list(found) == list(METRICS)
    differences = (second.predicted == second.labels) * 1.0 - (first.predicted == first.labels)
    error = 1.96 * differences.std() / np.sqrt(len(differences))
    accuracy = found["acc"]
    assert accuracy["difference"] == pytest.approx(differences.mean())
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * error, rel=0.1)
    same = bootstrap_differences([first, second], [second, first])
    assert all(value == pytest.approx(0) for value in same["log_loss"].values())
