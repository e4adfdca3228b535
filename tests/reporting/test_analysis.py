"""Metrics of predictions, compared with values worked out by hand and with other libraries."""

import csv

import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.classification import MulticlassCalibrationError

from src.reporting import analysis
from src.runs import RunFolder

PROBABILITIES = torch.tensor(
    [
        [0.90, 0.07, 0.03],
        [0.90, 0.06, 0.04],
        [0.08, 0.62, 0.30],
        [0.10, 0.09, 0.81],
        [0.20, 0.25, 0.55],
    ]
)
LABELS = torch.tensor([0, 1, 1, 2, 0])


def test_five_predictions_by_hand(evaluation):
    found = evaluation(PROBABILITIES.log(), LABELS).predictions
    bins = analysis.calibration_bins(found)
    counts = {i: row["count"] for i, row in enumerate(bins) if row["count"]}
    assert counts == {8: 1, 9: 1, 12: 1, 13: 2}
    assert bins[13]["accuracy"] == 0.5 and bins[13]["confidence"] == pytest.approx(0.9)
    empty = {"low": 0, "high": 1 / 15, "count": 0, "confidence": None, "accuracy": None}
    assert bins[0] == empty
    error = analysis.expected_calibration_error(bins)
    assert error == pytest.approx((2 * 0.4 + 0.38 + 0.19 + 0.55) / 5)
    assert analysis.topk_accuracies(found, 3) == {"acc_top2": 0.8}
    wrong = analysis.misclassified(found)
    assert wrong.positions.tolist() == [1, 4]
    assert wrong.confidence.tolist() == pytest.approx([0.90, 0.55])


def test_the_calibration_error_is_that_of_torchmetrics(evaluation):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2000, 10, generator=generator)
    random = torch.randint(0, 10, (2000,), generator=generator)
    kept = torch.rand(2000, generator=generator) < 0.6
    labels = torch.where(kept, logits.argmax(1), random)
    expected = MulticlassCalibrationError(10, n_bins=15, norm="l1")(logits.softmax(1), labels)
    bins = analysis.calibration_bins(evaluation(logits, labels).predictions)
    error = analysis.expected_calibration_error(bins)
    assert error == pytest.approx(float(expected), abs=1e-6)


def test_a_confidence_of_one_belongs_to_the_last_bin(evaluation):
    logits = torch.tensor([[200.0, 0, 0], [0, 200.0, 0]])
    bins = analysis.calibration_bins(evaluation(logits, torch.tensor([0, 0])).predictions)
    assert bins[-1]["count"] == 2 and bins[-1]["accuracy"] == 0.5
    assert analysis.expected_calibration_error(bins) == 0.5


def test_ties(evaluation):
    tied = evaluation(torch.zeros(3, 4), torch.tensor([0, 1, 3])).predictions
    assert len(analysis.misclassified(tied).labels) == 2


@pytest.mark.parametrize(("correct", "total"), [(8, 10), (0, 10), (10, 10), (9_876, 10_000)])
def test_the_interval_is_wilsons(correct, total):
    z, p = norm.ppf(0.975), correct / total
    centre = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * ((p * (1 - p) + z**2 / (4 * total)) / total) ** 0.5 / (1 + z**2 / total)
    expected = (max(centre - half, 0), min(centre + half, 1))
    assert analysis.wilson_interval(correct, total) == pytest.approx(expected, abs=1e-12)


def test_classes_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (300,), generator=generator)
    predicted = torch.where(torch.rand(300, generator=generator) < 0.7, labels, labels.roll(1))
    predicted[predicted == 4] = 0  # a class that is never predicted
    confusion = torch.from_numpy(confusion_matrix(labels, predicted, labels=range(7)))
    rows = analysis.per_class(list("abcdefg"), confusion)
    columns = precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=0)
    for i, row in enumerate(rows):
        precision, recall, f1, support = (column[i] for column in columns)
        expected = [precision, recall, f1, support] if support else [None, None, None, 0]
        assert [row[k] for k in ("precision", "recall", "f1", "support")] == pytest.approx(expected)
    assert analysis.class_metrics(list("abcdefg"), confusion)["per_class"]["g"] is None


def test_confused_pairs_and_the_most_confused_classes():
    confusion = torch.tensor([[8, 0, 2, 0], [0, 9, 1, 0], [4, 0, 6, 0], [0, 0, 0, 5]])
    pairs = analysis.confused_pairs(list("abcd"), confusion)
    expected = [("c", "a", 4, 0.4), ("a", "c", 2, 0.2), ("b", "c", 1, 0.1)]
    assert [tuple(pair.values()) for pair in pairs] == expected
    assert analysis.most_confused_classes(confusion, 2) == [0, 2]
    assert confusion.diagonal().tolist() == [8, 9, 6, 5]  # unchanged


def test_summary_metrics_add_to_those_of_the_evaluation(evaluation):
    found = analysis.summary_metrics(evaluation(PROBABILITIES.log(), LABELS))
    added = ["acc_top2", "acc_low", "acc_high", "ece"]
    assert list(found) == ["loss", "acc", "acc_balanced", *added]
    assert found["acc_low"] < found["acc"] < found["acc_high"]


def test_tables_hold_every_image_with_its_name(evaluation, tmp_path):
    classes = ["a=1,(b)", "猫", "c"]
    names = [f"folder/ü {i}.png" for i in range(5)]
    analysis.write_tables(
        RunFolder(tmp_path),
        "test",
        classes,
        evaluation(PROBABILITIES.log(), LABELS),
        lambda positions: [names[i] for i in positions.tolist()],
    )

    def read(name: str) -> list[dict[str, str]]:
        with open(tmp_path / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    rows = read("predictions.csv")
    assert list(rows[0]) == ["image", "label", "prediction", "probability", "label_probability"]
    assert [row["image"] for row in rows] == names
    assert [row["prediction"] for row in rows] == [classes[i] for i in (0, 0, 1, 2, 2)]
    wrong = read("misclassified.csv")
    assert [row["image"] for row in wrong] == [names[1], names[4]]
    assert float(wrong[0]["confidence"]) == pytest.approx(0.9)
    assert float(wrong[0]["label_probability"]) == pytest.approx(0.06)
    assert [row["support"] for row in read("per_class.csv")] == ["2", "2", "1"]
    assert [list(row.values())[1:] for row in read("confusion.csv")] == [
        ["1", "0", "1"],
        ["1", "1", "0"],
        ["0", "0", "1"],
    ]
    assert sum(int(row["count"]) for row in read("calibration.csv")) == 5


def test_a_class_without_images_is_empty_in_tables(evaluation, tmp_path):
    found = evaluation(PROBABILITIES.log(), torch.tensor([0, 1, 1, 1, 0]))
    run = RunFolder(tmp_path)
    analysis.write_tables(run, "val", ["a", "b", "c"], found, lambda p: [""] * len(p))
    last = (tmp_path / "per_class.csv").read_text().splitlines()[-1]
    assert last == "val,c,0,,,"
    assert analysis.summary_metrics(found)["acc_balanced"] is None
    table = analysis.format_table(analysis.per_class(["a", "b", "c"], found.confusion))
    assert table.splitlines()[0].split() == ["class", "images", "precision", "recall", "f1"]
    assert table.splitlines()[-1].split() == ["c", "0"]


def test_classes_with_few_images_are_named():
    confusion = torch.diag(torch.tensor([30, 3, 29]))
    said = analysis.few_images("val", ["dog", "cat", "cow"], confusion)
    assert said.startswith("Fewer than 30 val images of cat 3, cow 29:")
    assert not analysis.few_images("val", ["dog"], confusion[:1, :1])
    many = analysis.few_images("val", list("abcdefg"), torch.eye(7, dtype=torch.int64))
    assert "a 1, b 1, c 1, d 1, e 1 and 2 more classes" in many
