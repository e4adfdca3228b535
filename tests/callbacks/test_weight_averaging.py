"""Averaged weights: their values, that they are evaluated and saved, and exact resume."""

from functools import partial

import lightning as L
import pytest
import torch

from src.callbacks import EMA, SWA, BestCheckpoint, LastCheckpoint, StepSeed
from src.config.validate import mismatch, parameters
from src.models import ResNet9

NAMES = ("model.head.weight", "model.layers.0.0.weight", "model.layers.0.1.running_mean")
SGD = {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}


class Weights(L.Callback):
    """The weights of the optimizer after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        state = pl_module.state_dict()
        self.steps.append({name: state[name].clone() for name in NAMES})


def train(fit, *callbacks, **options):
    torch.manual_seed(1)
    model = ResNet9(1, 10, width=4)
    options = {"task": SGD, "enable_checkpointing": True} | options
    return fit(StepSeed(0), *callbacks, model=model, **options)


def load(path):
    return torch.load(path, weights_only=True)


def test_ema_has_a_warm_up_and_is_what_is_validated_and_saved(fit, tmp_path):
    weights, best = Weights(), BestCheckpoint(dirpath=tmp_path)
    run = train(fit, weights, EMA(0.999), best, max_epochs=2)
    average = dict(weights.steps[0])
    for step, current in enumerate(weights.steps[1:], 1):
        fraction = 1 - min(0.999, (1 + step) / (10 + step))
        average = {k: v + (current[k] - v) * fraction for k, v in average.items()}
    final = run.task.state_dict()
    assert all(torch.equal(average[name], final[name]) for name in NAMES)

    stored = load(tmp_path / "best.ckpt")
    run.trainer.validate(run.task, run.data, best.best_model_path, verbose=False)
    loss = run.task.evaluations["val"].metrics["loss"]
    assert loss == pytest.approx(float(best.best_model_score))
    assert not torch.equal(stored["state_dict"][NAMES[0]], stored["current_model_state"][NAMES[0]])
    plain = Weights()
    train(fit, plain, max_epochs=2)
    assert all(torch.equal(plain.steps[-1][name], weights.steps[-1][name]) for name in NAMES)


@pytest.mark.parametrize("average", [EMA(0.5), SWA(0.0)])
def test_after_the_training_the_checkpoint_is_evaluated_as_it_is(fit, tmp_path, average):
    run = train(fit, average, LastCheckpoint(dirpath=tmp_path))
    path = tmp_path / "last.ckpt"
    state = load(path)["state_dict"]
    state["model.head.weight"].zero_()
    torch.save(load(path) | {"state_dict": state}, path)
    for evaluate in (run.trainer.test, run.trainer.validate):
        evaluate(run.task, run.data, path, weights_only=True, verbose=False)
        assert all(torch.equal(run.task.state_dict()[name], state[name]) for name in NAMES)
    run.trainer.save_checkpoint(tmp_path / "again.ckpt")
    assert load(tmp_path / "again.ckpt")["state_dict"]["model.head.weight"].abs().sum() == 0


def test_swa_is_the_mean_of_the_last_epochs(fit, tmp_path):
    weights = Weights()
    run = train(fit, weights, SWA(0.5), max_epochs=4)
    ends = weights.steps[17], weights.steps[23]
    for name in NAMES:
        mean = (ends[0][name] + ends[1][name]) / 2
        torch.testing.assert_close(run.task.state_dict()[name], mean)


def test_swa_that_never_starts_leaves_the_weights_alone(fit, tmp_path):
    weights, last = Weights(), LastCheckpoint(dirpath=tmp_path)
    run = train(fit, weights, SWA(0.9), last, max_epochs=2, max_steps=8)
    stored = load(last.path)["state_dict"]
    for state in (run.task.state_dict(), stored):
        assert all(torch.equal(state[name], weights.steps[-1][name]) for name in NAMES)


@pytest.mark.parametrize("average", [EMA, partial(SWA, 0.3)])
def test_averaged_runs_resume_exactly(fit, tmp_path, average):
    def states(folder, epochs, resume=None):
        last = LastCheckpoint(dirpath=tmp_path / folder)
        train(fit, average(), last, max_epochs=epochs, resume=resume)
        return load(last.path)

    whole = states("whole", 3)
    # The start of SWA depends on the length, which both parts must know.
    first = LastCheckpoint(dirpath=tmp_path / "parts")
    train(fit, average(), first, max_epochs=3, max_steps=12)
    parts = states("parts", 3, first.path)
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[key][name], parts[key][name]) for name in NAMES)


@pytest.mark.parametrize("average", [EMA(), SWA()])
def test_integers_are_not_averaged(average):
    average._fraction = 0.5
    three, five = torch.tensor(3), torch.tensor(5)
    assert torch.equal(average._average(three, five, 1), five)
    assert average._average(torch.tensor(1.0), torch.tensor(2.0), 1) == 1.5


@pytest.mark.parametrize(("average", "name"), [(EMA, "decay"), (SWA, "start")])
def test_arguments_are_fractions(average, name):
    annotation = parameters(average)[0][name].annotation
    assert (
        mismatch(1.0, annotation) and mismatch(-0.1, annotation) and not mismatch(0.0, annotation)
    )
