"""What a measured split leaves in a folder, the same for a training run and for an evaluation: figures for results.json, and tables."""

from typing import Any

from src import measures
from src.datamodules import ImageDataModule
from src.run_folder import RunFolder, per_class
from src.tasks import ClassificationTask


def figures(task: ClassificationTask, split: str) -> dict[str, float]:
    """Loss and accuracies of a split, the 95 % interval of the accuracy, and the expected calibration error."""
    return task.figures[split] | measures.trust(task.predictions[split], task.confusion[split])


def by_class(task: ClassificationTask, split: str) -> dict[str, Any]:
    """Accuracy of each class, and the most frequent mistakes."""
    return {
        "per_class": {row["class"]: row["recall"] for row in per_class(task.classes, task.confusion[split])},
        "most_confused": measures.confused_pairs(task.classes, task.confusion[split]),
    }


def write_findings(run: RunFolder, task: ClassificationTask, data: ImageDataModule, split: str) -> None:
    """`per_class.csv`, `confusion.csv`, `calibration.csv` and `mistakes.csv`."""
    if not run.active:
        return
    classes, confusion, predictions = task.classes, task.confusion[split], task.predictions[split]
    run.write_per_class(split, classes, confusion)
    rows = ([name, *counts.tolist()] for name, counts in zip(classes, confusion, strict=True))
    run.write_csv("confusion.csv", ["true / predicted", *classes], rows)
    bins = measures.calibration(predictions)
    run.write_csv("calibration.csv", list(bins[0]), (list(row.values()) for row in bins))
    wrong = measures.mistakes(predictions)
    names = data.names(split, wrong.positions)
    run.write_csv(
        "mistakes.csv",
        ["picture", "true", "predicted", "confidence", "true_probability"],
        (
            [name, classes[true], classes[predicted], confidence, probability]
            for name, true, predicted, confidence, probability in zip(
                names, wrong.labels.tolist(), wrong.predicted.tolist(), wrong.confidence.tolist(), wrong.true_probability.tolist(),
                strict=True,
            )
        ),
    )  # fmt: skip
