"""The task in real trainings that are composed by hand: no Hydra involved."""

import math
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch.optim import lr_scheduler

from src.datamodules import DigitsDataModule
from src.errors import UserError
from src.models import LeNet
from src.tasks import ClassificationTask, schedulers

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def fitted(callbacks=(), trainer=None, task_class=ClassificationTask, **task):
    """A trainer and a task after a short training on the digits."""
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(image_size=16, batch_size=64)
    model = LeNet(data.channels, len(data.classes), data.image_size)
    module = task_class(model, data.classes, data.mean, data.std, **task)
    options = {
        "max_epochs": 2,
        "limit_train_batches": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    runner = L.Trainer(**(options | (trainer or {})))
    runner.fit(module, data)
    return runner, module


def test_normalization_is_that_of_torchvision():
    from torchvision.transforms import v2

    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.49, 0.48, 0.44), (0.2, 0.3, 0.4)
    expected = v2.Normalize(mean, std)(v2.ToDtype(torch.float32, scale=True)(images))
    task = ClassificationTask(torch.nn.Identity(), list("ab"), mean, std)
    assert torch.allclose(task(images), expected, atol=1e-6)


def test_normalization_leaves_its_input_alone():
    task = ClassificationTask(torch.nn.Identity(), list("ab"), [0.5], [0.5])
    images = torch.full((1, 1, 2, 2), 255.0)
    assert torch.equal(task.normalize(images), torch.ones(1, 1, 2, 2))
    assert torch.equal(images, torch.full((1, 1, 2, 2), 255.0))


def test_cross_entropy_of_the_tutorial():
    task = ClassificationTask(torch.nn.Identity(), list("abc"), [0.0], [1.0])
    loss = task.loss(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([1])).item()
    assert loss == pytest.approx(0.7679, abs=5e-5)


def test_training_metrics_are_means_over_images():
    """At learning rate 0 they are those of the training images, uneven last batch included."""
    options = {"limit_train_batches": 1.0, "max_epochs": 1, "log_every_n_steps": 7}
    runner, module = fitted(optimizer=partial(torch.optim.SGD, lr=0.0), trainer=options)
    data = runner.datamodule
    labels = data.labels("train")
    with torch.no_grad():
        logits = module(data.images("train", torch.arange(1293)))
        expected = torch.nn.functional.cross_entropy(logits, labels).item()
    correct = (logits.argmax(1) == labels).float().mean().item()
    assert float(runner.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(runner.callback_metrics["train/acc"]) == pytest.approx(correct, rel=1e-6)


class Recorder(Logger):
    """Keeps what is logged inside epochs."""

    name, version = "recorder", ""

    def __init__(self):
        super().__init__()
        self.intervals = []

    def log_hyperparams(self, *args, **kwargs): ...

    def log_metrics(self, metrics, step=None):
        if "epoch" not in metrics and "train/loss" in metrics:
            self.intervals.append((step, metrics["train/loss"]))


def test_log_intervals_inside_an_epoch():
    recorder = Recorder()
    options = {"logger": recorder, "max_epochs": 1, "log_every_n_steps": 2}
    fitted(trainer=options)
    assert [step for step, _ in recorder.intervals] == [1, 3, 4]
    assert all(math.isfinite(loss) for _, loss in recorder.intervals)


class OwnStep(ClassificationTask):
    """Overrides the step and returns the loss alone."""

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("my_loss", loss)
        return loss


def test_an_overridden_step_is_counted_from_what_it_returns():
    plain, _ = fitted()
    own, _ = fitted(task_class=OwnStep)
    assert own.callback_metrics["train/loss"] == plain.callback_metrics["train/loss"]
    assert "train/acc" in plain.callback_metrics and "train/acc" not in own.callback_metrics
    assert "my_loss" in own.callback_metrics


class LearningRates(L.Callback):
    """The learning rate of each step."""

    def __init__(self):
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(scheduler, interval="epoch", trainer=None, **task) -> list[float]:
    """Learning rates of 4 epochs with 5 batches each."""
    recorder = LearningRates()
    options = {"max_epochs": 4} | (trainer or {})
    fitted([recorder], options, optimizer=SGD, scheduler=scheduler, interval=interval, **task)
    return recorder.rates


COSINE = partial(lr_scheduler.CosineAnnealingLR, T_max=None)
ONECYCLE = partial(lr_scheduler.OneCycleLR, max_lr=None, total_steps=None)


def test_epoch_schedules_step_after_the_epoch():
    step = partial(lr_scheduler.StepLR, step_size=2, gamma=0.1)
    assert rates(step) == pytest.approx([0.1] * 10 + [0.01] * 10)
    assert rates(schedulers.constant) == [0.1] * 20


def test_schedules_end_with_the_run():
    cosine = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert rates(COSINE, "step") == pytest.approx(cosine)
    by_epoch = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert rates(COSINE)[::5] == pytest.approx(by_epoch)
    onecycle = rates(ONECYCLE, "step")
    assert max(onecycle) == pytest.approx(0.1, rel=0.01)
    assert onecycle[0] == pytest.approx(0.004) and onecycle[-1] < 1e-4


def test_schedules_count_optimizer_steps_under_accumulation():
    assert rates(ONECYCLE, "step", {"accumulate_grad_batches": 2})[-1] < 0.001


def test_a_plateau_schedule_waits_for_its_metric():
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
    curve = rates(plateau, monitor="val/acc")
    assert set(curve) <= {0.1, 0.05, 0.025, 0.0125} and len(set(curve)) > 1
    rates(plateau, trainer={"check_val_every_n_epoch": 2, "max_epochs": 3})


def test_a_schedule_needs_the_length_of_the_run():
    with pytest.raises(UserError, match="length of the run"):
        rates(COSINE, trainer={"max_epochs": -1, "max_steps": 5})


def test_a_checkpoint_describes_the_network(tmp_path):
    runner, _ = fitted(description={"image_size": 16}, trainer={"max_epochs": 1})
    runner.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    description = content["description"]
    assert description["classes"] == list("0123456789") and description["image_size"] == 16
    assert description["channels"] == 1 and len(description["mean"]) == 1
    assert {"val/loss", "val/acc"} <= set(description["metrics"])
    assert all(name.split(".")[0] in ("model", "mean", "std") for name in content["state_dict"])


def test_a_training_step_without_a_loss_is_reported():
    class Forgotten(ClassificationTask):
        def training_step(self, batch, batch_idx):
            self.loss(self(batch[0]), batch[1])

    with pytest.raises(UserError, match="Forgotten.training_step returned no loss"):
        fitted(task_class=Forgotten)
