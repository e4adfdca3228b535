"""Warnings about outputs that do not fit the loss."""

import pytest
import torch
from torch import nn

from src.callbacks import OutputCheck
from src.callbacks.output_check import find_problem
from src.tasks import ClassificationTask

LOGITS = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
ENTROPY, LIKELIHOOD = nn.CrossEntropyLoss(), nn.NLLLoss()


@pytest.mark.parametrize(
    ("outputs", "criterion", "word"),
    [
        (LOGITS.softmax(1), ENTROPY, "leave softmax out"),
        (LOGITS.softmax(1).bfloat16(), ENTROPY, "leave softmax out"),
        (LOGITS.log_softmax(1), ENTROPY, "leave log_softmax out"),
        (LOGITS.softmax(0), ENTROPY, "softmax over the images"),
        (LOGITS.sigmoid(), ENTROPY, "those of sigmoid"),
        (LOGITS.relu(), ENTROPY, "those of relu"),
        (LOGITS + 5, LIKELIHOOD, "negative"),
        (LOGITS.softmax(1), LIKELIHOOD, "negative"),
    ],
)
def test_outputs_that_do_not_fit(outputs, criterion, word):
    loss = criterion(outputs.float(), torch.arange(8))
    assert word in find_problem(outputs, loss, criterion)


@pytest.mark.parametrize(
    ("outputs", "criterion"),
    [
        (LOGITS, ENTROPY),
        (LOGITS.abs(), ENTROPY),
        (LOGITS * 0, ENTROPY),
        (LOGITS.log_softmax(1), LIKELIHOOD),
        (None, ENTROPY),
    ],
)
def test_outputs_that_fit(outputs, criterion):
    assert find_problem(outputs, torch.tensor(2.3), criterion) is None


def test_the_first_batch_is_looked_at_once(fit, caplog):
    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 10), nn.Softmax(1))

        def forward(self, images):
            return self.layers(images)

    callback = OutputCheck()
    fit(callback, model=Probabilities())
    assert [r.message.count("softmax") for r in caplog.records if "softmax" in r.message] == [2]
    assert callback.on_train_batch_end is None


class Odd(nn.Module):
    """A network with one mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake = mistake
        self.flatten, self.fc = nn.Flatten(), nn.Linear(256, 10)
        self.unused = nn.Linear(3, 3) if mistake == "unused" else None

    def forward(self, images):
        values = self.flatten(images)
        if self.mistake == "layer":
            values = nn.Linear(256, 256)(values)
        if self.mistake == "dropout":
            values = nn.functional.dropout(values, 0.5)
        return self.fc(values)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("layer", ["other outputs for the same images"]),
        ("dropout", ["other outputs for the same images"]),
        ("unused", ["2 parameters", "unused.weight, unused.bias"]),
        (None, []),
    ],
)
def test_networks_that_train_and_are_wrong(fit, caplog, mistake, words):
    fit(OutputCheck(), model=Odd(mistake))
    messages = [r.message for r in caplog.records if r.name.endswith("output_check")]
    assert len(messages) == bool(words)
    assert all(word in messages[0] for word in words)


def test_images_that_are_divided_twice(fit, caplog, monkeypatch):
    step = ClassificationTask.training_step
    halved = lambda self, batch, i: step(self, (batch[0] / 255, batch[1]), i)  # noqa: E731
    monkeypatch.setattr(ClassificationTask, "training_step", halved)
    fit(OutputCheck(), model=Odd(None))
    assert sum("run from 0 to 1" in message for message in caplog.messages) == 1
