"""Which images loggers get, and when."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from src.callbacks import ImageLogger, StepSeed
from src.errors import UserError


class Images(Logger):
    """A logger that keeps what it gets."""

    name, version = "images", ""

    def __init__(self):
        super().__init__()
        self.images = {}

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params, *args, **kwargs): ...

    def log_image(self, key, images, step=None):
        (image,) = images
        self.images[key] = (image, step)


def test_images_at_the_start_and_after_the_evaluation(fit):
    logger = Images()
    run = fit(ImageLogger(num_images=7), logger=logger)
    assert {key: step for key, (_, step) in logger.images.items()} == {"train/augmented": 0}
    run.trainer.validate(run.task, run.data, verbose=False)
    run.trainer.test(run.task, run.data, verbose=False)
    layers = ("features.0 Conv2d", "features.1 ReLU", "features.2 MaxPool2d")
    names = ("predictions", "confusion", *(f"features {layer}" for layer in layers))
    expected = {f"{split}/{name}" for split in ("val", "test") for name in names}
    assert set(logger.images) == expected | {"train/augmented"}
    for image, _ in logger.images.values():
        assert image.dtype == "uint8" and image.ndim == 3 and image.shape[2] == 3
        assert min(image.shape[:2]) > 50


def test_predictions_are_those_of_the_evaluation(fit, monkeypatch):
    grids = []
    monkeypatch.setattr("src.reporting.plots.image_grid", lambda *args: grids.append(args))
    run = fit(ImageLogger(7, ["features.4"]), logger=Images())
    run.trainer.test(run.task, run.data, verbose=False)
    (_, (images, names, predictions)) = grids
    with torch.no_grad():
        logits = run.task.eval()(images)
    assert len(images) == 7 and predictions == [str(i) for i in logits.argmax(1).tolist()]
    labels = run.task.evaluations["test"].predictions.labels
    assert names[0] == str(labels[0].item()) and names[-1] == str(labels[-1].item())
    assert any("features.4 ReLU" in key for key in run.trainer.logger.images)


def test_the_training_stays_the_same(fit):
    plain = fit(StepSeed(0)).task.state_dict()
    logged = fit(StepSeed(0), ImageLogger(), logger=Images()).task.state_dict()
    assert all(torch.equal(plain[name], logged[name]) for name in plain)


def test_loggers_without_images_cost_nothing(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("src.reporting.plots.image_grid", None)
    run = fit(ImageLogger(), logger=CSVLogger(tmp_path))
    run.trainer.test(run.task, run.data, verbose=False)


def test_a_misspelt_layer_is_reported_before_training(fit):
    with pytest.raises(UserError, match=r"no layer 'feature\.0'") as caught:
        fit(ImageLogger(layers=["feature.0"]), logger=Images())
    assert "features.0" in caught.value.remedy


def test_a_network_without_maps(fit):
    logger = Images()
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    run = fit(ImageLogger(), model=network, logger=logger)
    run.trainer.test(run.task, run.data, verbose=False)
    assert set(logger.images) == {"train/augmented", "test/predictions", "test/confusion"}
