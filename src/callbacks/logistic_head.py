"""A regularised linear head for few photos, fitted at once on the features of a backbone."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from pydantic import PositiveFloat
from torch import nn

from ..errors import UserError
from ..reporting.analysis import wilson_interval
from .base import EpochCallback
from .head_inputs import head_inputs, head_takes_features

log = logging.getLogger(__name__)

MAX_FOLDS = 5


class LogisticHead(EpochCallback):
    """Fits the head by logistic regression on all training and validation images.

    No epoch is trained, and nothing is validated, since the head has seen every image. What stands
    for a validation is cross-validation: each image is predicted by a head that was fitted, with
    its own choice of the regularisation, on the other folds. The accuracy of these predictions is
    `measured["cross_validation"]`, which `RunRecorder` writes into `results.json`. Test images are
    never used.

    Args:
        dirpath: the folder of `best.ckpt` and `last.ckpt`, which are the same; None is
            `checkpoints` in the trainer's root folder.
        strengths: values of C, the inverse strength of the L2 penalty, to choose from by the log
            loss of cross-validation, since the accuracy of a few photos is the same for most.
        seed: of the division into folds.

    Raises:
        UserError: a class with fewer than two images; a network whose last layer is not linear.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        strengths: Sequence[PositiveFloat] = (0.01, 0.1, 1.0),
        seed: int = 0,
    ):
        self.dirpath = dirpath
        self.strengths, self.seed = list(strengths), seed
        self.measured: dict[str, Any] = {}
        self.out_of_fold = torch.empty(0)  # float64 (N, num_classes), of train and val images

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        trainer.fit_loop.max_epochs = 0
        trainer.limit_val_batches = 0
        head = pl_module.head
        pl_module.eval()  # batch norm and dropout as in evaluation
        is_linear = isinstance(head, nn.Linear) and head.bias is not None
        if not is_linear or not head_takes_features(trainer, pl_module):
            raise UserError(
                "callbacks.logistic_head needs a network that ends in a linear layer with a bias, "
                f"and {type(pl_module.model).__name__} does not.",
                "Choose another network, or callbacks.freeze_backbone.enabled=true in its place.",
            )
        features, labels = _features_and_labels(trainer, pl_module)
        _check_counts(labels, pl_module.classes)
        log.info("Fitting the head on all %s photos, with cross-validation ...", len(labels))
        self.measured["cross_validation"] = self._cross_validate(features, labels)
        weight, bias = self._fit(features, labels)
        with torch.no_grad():
            head.weight.copy_(torch.as_tensor(weight))
            head.bias.copy_(torch.as_tensor(bias))
        pl_module.description["fitted_on"] = ["train", "val"]

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        folder = Path(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")
        for name in ("best.ckpt", "last.ckpt"):
            if not trainer.fast_dev_run:
                trainer.save_checkpoint(folder / name, weights_only=False)

    def _cross_validate(self, features: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Accuracy of the predictions for folds that were left out, with its 95 % interval."""
        folds = _folds(labels, self.seed)
        logits = np.empty((len(labels), labels.max() + 1))
        for others, left_out in folds:
            weight, bias = self._fit(features[others], labels[others])
            logits[left_out] = features[left_out] @ weight.T + bias
        self.out_of_fold = torch.as_tensor(logits).softmax(1)
        correct = int((logits.argmax(1) == labels).sum())
        low, high = wilson_interval(correct, len(labels))
        accuracy = correct / len(labels)
        counts = {"n": len(labels), "folds": len(folds)}
        return {"acc": accuracy, "acc_low": low, "acc_high": high, **counts}

    def _fit(self, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight (num_classes, D) and bias (num_classes,) of the regression."""
        from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

        model: Any
        if np.bincount(labels).min() < 2:  # one image a class leaves nothing to choose C by
            model = LogisticRegression(max_iter=1000)
        else:
            model = LogisticRegressionCV(
                Cs=self.strengths,
                cv=_folds(labels, self.seed),
                scoring="neg_log_loss",
                max_iter=1000,
            )
        with warnings.catch_warnings():  # of defaults that later versions of scikit-learn change
            warnings.simplefilter("ignore", FutureWarning)
            model.fit(features, labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes: the logit of the second against the first
            weight, bias = (np.concatenate([-values / 2, values / 2]) for values in (weight, bias))
        return weight, bias


def _folds(labels: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions of the other folds, of the fold that is left out), stratified by class."""
    from sklearn.model_selection import StratifiedKFold

    count = min(MAX_FOLDS, int(np.bincount(labels).min()))
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels))


def _features_and_labels(trainer: L.Trainer, pl_module: Any) -> tuple[np.ndarray, np.ndarray]:
    """float64 (N, D) features and int64 (N,) labels of all training and validation images."""
    data: Any = trainer.datamodule
    features, labels = [], []
    for split in ("train", "val"):
        of_split = data.labels(split)
        for positions in torch.arange(len(of_split)).split(data.eval_batch_size):
            images = data.images(split, positions).to(pl_module.device)
            features.append(head_inputs(trainer, pl_module, images).double().cpu())
        labels.append(of_split)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def _check_counts(labels: np.ndarray, classes: Sequence[str]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2:
        name = classes[int(counts.argmin())]
        raise UserError(
            f"{name} has {counts.min()} photos: cross-validation needs two of each class.",
            "Add photos of this class, or remove its folder.",
        )
