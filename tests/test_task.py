"""The task: metrics with known answers, schedules that know the length of the run, optimizers as torch has them."""

import csv
import math
from functools import partial

import lightning as L
import pytest
import torch
from conftest import composed, run_training
from omegaconf import OmegaConf
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score

from src.build import TIMING, build, factory
from src.datamodules import DigitsDataModule
from src.errors import UserError
from src.models import LeNet
from src.run_folder import per_class, table
from src.tasks import ClassificationTask
from src.tasks.metrics import Metrics


def fitted(data=None, callbacks=(), trainer=(), **task) -> tuple[L.Trainer, ClassificationTask]:
    """A hand-composed task, trained: no Hydra involved."""
    L.seed_everything(0, verbose=False)
    data = data or DigitsDataModule(image_size=16, batch_size=64)
    module = ClassificationTask(LeNet(data.channels, len(data.classes), data.image_size), data.classes, data.mean, data.std, **task)
    options = {"max_epochs": 2, "limit_train_batches": 5, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "callbacks": list(callbacks)} | dict(trainer)
    runner = L.Trainer(**options)
    runner.fit(module, data)
    return runner, module


def test_metrics_of_hand_made_logits():
    """Four pictures, three right: known loss, accuracies and confusion, whatever the batches."""
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [2.0, 0, 0], [0, 0, 2.0]])
    labels = torch.tensor([0, 1, 1, 2])
    for sizes in ([4], [3, 1]):
        metrics = Metrics(3)
        for part, target in zip(logits.split(sizes), labels.split(sizes), strict=True):
            metrics.update(part, target, torch.nn.functional.cross_entropy(part, target))
        values, confusion = metrics.compute()
        right, wrong = math.log(1 + 2 * math.exp(-2)), math.log(math.exp(2) + 2)
        assert values["loss"] == pytest.approx((3 * right + wrong) / 4, rel=1e-6)
        assert values["acc"] == 0.75 and values["acc_balanced"] == pytest.approx((1 + 0.5 + 1) / 3)
        assert confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_further_metrics_are_those_of_torchmetrics():
    """Whatever the batches, twice in a row, and beside the project's own."""
    logits, labels = torch.randn(50, 4), torch.arange(50) % 4
    given = {"f1": MulticlassF1Score(4, average="macro"), "auroc": MulticlassAUROC(4)}
    expected = {name: float(metric.clone()(logits, labels)) for name, metric in given.items()}
    metrics = Metrics(4, given)
    assert metrics.names == ["loss", "acc", "acc_balanced", "auroc", "f1"]
    for _ in range(2):
        for part, target in zip(logits.split(20), labels.split(20), strict=True):
            metrics.update(part, target, torch.tensor(1.0))
        values, _ = metrics.compute()
        metrics.reset()
        assert {name: values[name] for name in given} == pytest.approx(expected) and values["loss"] == pytest.approx(1.0)


def test_further_metrics_hang_on_no_batch_and_on_no_other_metric():
    """Not on what the first batch shares by chance, nor on whether a batch's logits look like probabilities."""
    logits, labels = torch.rand(200, 6, generator=torch.Generator().manual_seed(0)) * 1.5, torch.arange(200) % 6
    logits[:20] = torch.nn.functional.one_hot(labels[:20], 6).float()  # all of them right, for whatever k
    given = {f"top{k}": MulticlassAccuracy(6, top_k=k, average="micro") for k in (2, 3)} | {"auroc": MulticlassAUROC(6)}
    expected = {name: float(metric.clone()(logits.softmax(1), labels)) for name, metric in given.items()}
    for size in (1, 20, 200):
        metrics = Metrics(6, given)
        for part, target in zip(logits.split(size), labels.split(size), strict=True):
            metrics.update(part, target, torch.tensor(1.0))
        values, _ = metrics.compute()
        assert {name: values[name] for name in given} == pytest.approx(expected)


def test_a_task_composed_by_hand_is_tried_where_its_weights_are():
    task = ClassificationTask(LeNet(1, 10, 28), list("0123456789"), [0.5], [0.5])
    task._device = torch.device("meta")  # in `setup` Lightning says where the weights are going to be
    task._try_network(1, 28)


def test_a_plateau_looks_only_where_something_was_measured(tmp_path):
    options = ["scheduler=plateau", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3", "trainer.limit_train_batches=2"]
    assert run_training(tmp_path, "model=lenet", *options)["epochs"] == 3


def test_further_metrics_are_logged_monitored_and_shown(tmp_path, caplog):
    caplog.set_level("INFO")
    stop = ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping", "+callbacks.stop.monitor=val/f1"]
    results = run_training(tmp_path, "model=lenet", "trainer.max_epochs=2", "metrics=f1", *stop)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[results["best_epoch"]]["val/f1"]) == pytest.approx(results["val"]["f1"])
    with open(tmp_path / "per_class.csv", newline="") as file:
        f1 = [float(row["f1"]) for row in csv.DictReader(file)]
    assert results["test"]["f1"] == pytest.approx(sum(f1) / len(f1), abs=1e-4)
    assert results["metrics"] == ["f1"] and "test f1" in (tmp_path / "report.html").read_text()
    assert f" f1 {float(rows[-1]['val/f1']):.4f}" in caplog.text and f"test f1 {results['test']['f1']:.4f}" in caplog.text


@pytest.mark.parametrize(
    "overrides, problem, remedy",
    [
        (["metrics=f1", "metrics.f1.average=none"], "metrics.f1 gives no single number", "average=macro"),
        (["+metrics.acc._target_=torchmetrics.classification.MulticlassAccuracy"], "cannot have this name", "loss, acc"),
        (["+metrics.ece._target_=torchmetrics.classification.MulticlassCalibrationError"], "cannot have this name", "not taken"),
        (["+metrics.mine._target_=torch.nn.Identity"], "is a Identity, no metric", "torchmetrics"),
        (["metrics=f1", "+metrics.f1.averge=macro"], "averge", "metrics.f1"),
    ],
)
def test_what_is_no_further_metric_is_told_before_any_data_are_read(overrides, problem, remedy):
    with pytest.raises(UserError) as told:
        build(composed(overrides))
    assert problem in told.value.problem and remedy in told.value.remedy


def test_a_loss_that_is_not_a_number_shows():
    metrics = Metrics(2)
    metrics.update(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor(float("nan")))
    assert math.isnan(metrics.compute()[0]["loss"])


def test_tutorial_values_of_accuracy_and_cross_entropy():
    metrics = Metrics(2)
    metrics.update(torch.tensor([[0.3, 0.7], [0.6, 0.4]]), torch.tensor([0, 0]), torch.tensor(0.0))
    assert metrics.compute()[0]["acc"] == 0.5
    task = ClassificationTask(torch.nn.Identity(), list("abc"), [0.0], [1.0])
    assert task.loss(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([1])).item() == pytest.approx(0.7679, abs=5e-5)
    assert task.loss(torch.tensor([[0.8, 0.1, 0.1]]), torch.tensor([1])).item() == pytest.approx(1.3897, abs=5e-5)


def test_top5_counts_the_five_highest():
    metrics = Metrics(10)
    metrics.update(torch.arange(10.0).repeat(10, 1), torch.arange(10), torch.tensor(0.0))
    assert metrics.compute()[0]["acc_top5"] == 0.5


def test_per_class_table():
    rows = per_class(["cat", "dog", "ox"], torch.tensor([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    assert rows[0] == {"class": "cat", "support": 10, "precision": 8 / 9, "recall": 0.8, "f1": 16 / 19}
    assert rows[2] == {"class": "ox", "support": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert "0.8000" in table(rows)


def test_normalisation_is_what_torchvision_does():
    from torchvision.transforms import v2

    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.49, 0.48, 0.44), (0.2, 0.3, 0.4)
    plain = v2.Normalize(mean, std)(v2.ToDtype(torch.float32, scale=True)(images))
    task = ClassificationTask(torch.nn.Identity(), list("ab"), mean, std)
    assert torch.allclose(task(images), plain, atol=1e-6)


def test_train_figures_are_means_over_pictures(tmp_path):
    """With rate 0 and no dropout the epoch's train loss is the loss of the train pictures, uneven last batch included."""
    runner, module = fitted(
        optimizer=partial(torch.optim.SGD, lr=0.0), trainer={"limit_train_batches": 1.0, "max_epochs": 1, "log_every_n_steps": 7}
    )
    data = runner.datamodule
    with torch.no_grad():
        logits = module(data.images("train", torch.arange(1293)))
        expected = torch.nn.functional.cross_entropy(logits, data.labels("train")).item()
        hits = (logits.argmax(1) == data.labels("train")).float().mean().item()
    assert float(runner.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(runner.callback_metrics["train/acc"]) == pytest.approx(hits, rel=1e-6)


def test_marks_inside_an_epoch_are_means_since_the_last_one():
    from lightning.pytorch.loggers import Logger

    class Recorder(Logger):
        name, version = "recorder", ""
        marks: list = []

        def log_hyperparams(self, *args, **kwargs): ...

        def log_metrics(self, metrics, step=None):
            if "epoch" not in metrics and "train/loss" in metrics:
                self.marks.append((step, metrics["train/loss"]))

    recorder = Recorder()
    fitted(trainer={"logger": recorder, "limit_train_batches": 5, "max_epochs": 1, "log_every_n_steps": 2})
    assert len(recorder.marks) == 3 and all(math.isfinite(loss) for _, loss in recorder.marks)


def test_class_weights_reach_the_training_loss_alone():
    data = DigitsDataModule(image_size=16, balance="loss")
    _, module = fitted(data, trainer={"max_epochs": 1, "limit_train_batches": 1})
    assert module.loss.weight.shape == (10,) and module.eval_loss.weight is None
    assert "loss.weight" not in module.state_dict()


class Rates(L.Callback):
    """The rate that each step was taken with."""

    def __init__(self):
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(name: str, *overrides: str, **trainer) -> list[float]:
    """The rates of a run of 4 epochs with 5 batches each, under `scheduler=name`."""
    cfg = composed([f"scheduler={name}", *overrides]).scheduler
    node = {key: value for key, value in cfg.items() if key not in TIMING}
    recorder = Rates()
    fitted(
        callbacks=[recorder],
        trainer={"max_epochs": 4, "limit_train_batches": 5} | trainer,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        scheduler=factory("scheduler", OmegaConf.create(node)),
        **{key: cfg[key] for key in TIMING if key in cfg},
    )
    return recorder.rates


def test_step_schedules_move_behind_the_epoch():
    assert rates("step", "scheduler.step_size=2", "scheduler.gamma=0.1") == pytest.approx([0.1] * 10 + [0.01] * 10)
    assert rates("multistep", "scheduler.milestones=[1,3]") == pytest.approx([0.1] * 5 + [0.05] * 10 + [0.025] * 5)
    assert rates("constant") == [0.1] * 20


def test_cosine_and_onecycle_end_with_the_run():
    cosine = rates("cosine")
    assert cosine == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])
    by_epoch = rates("cosine", "scheduler.interval=epoch")
    assert by_epoch[::5] == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])
    onecycle = rates("onecycle")
    assert max(onecycle) == pytest.approx(0.1, rel=0.01) and onecycle[0] == pytest.approx(0.004) and onecycle[-1] < 1e-4


def test_warmup_cosine_rises_then_falls_to_the_end():
    curve = rates("warmup_cosine", "scheduler.warmup=4")
    assert curve[:5] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525, 0.1]) and curve[-1] < 0.002
    assert curve[4:] == sorted(curve[4:], reverse=True)


def test_schedules_count_optimizer_steps_under_accumulation():
    assert rates("onecycle", accumulate_grad_batches=2)[-1] < 0.001


def test_plateau_waits_for_the_monitored_metric():
    curve = rates("plateau", "scheduler.patience=0", "scheduler.monitor=val/acc", "scheduler.mode=min", "scheduler.factor=0.5")
    assert set(curve) <= {0.1, 0.05, 0.025, 0.0125} and len(set(curve)) > 1


def test_a_schedule_needs_to_know_the_length_of_the_run():
    with pytest.raises(UserError, match="length of the run"):
        rates("cosine", "scheduler.interval=epoch", max_epochs=-1, max_steps=5)


def test_choices_left_open_give_way_to_what_was_typed():
    sgd = partial(torch.optim.SGD, lr=0.01)
    _, open_ = fitted(optimizer=partial(sgd, fused=None), trainer={"max_epochs": 1})
    assert open_.automatic == {"channels_last": True, "fused": True}
    _, typed = fitted(optimizer=partial(sgd, fused=False), channels_last=False, trainer={"max_epochs": 1})
    assert typed.automatic == {} and typed.channels_last is False


def test_compiled_networks_keep_their_parameter_names():
    data = DigitsDataModule(image_size=16)
    task = ClassificationTask(LeNet(1, 10, 16), data.classes, data.mean, data.std, compile=True)
    names = set(task.state_dict())
    task.model.compile(backend="eager")
    assert set(task.state_dict()) == names and "model.features.0.weight" in names


@pytest.mark.parametrize(("channels", "classes", "words"), [(3, 10, "1x16x16"), (1, 7, "10 classes")])
def test_a_network_that_does_not_fit_the_data(channels, classes, words):
    data = DigitsDataModule(image_size=16)
    task = ClassificationTask(LeNet(channels, classes, 16), data.classes, data.mean, data.std)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1)
    with pytest.raises(UserError, match=words):
        trainer.fit(task, data)
