"""Warnings about outputs that do not fit the loss."""

import pytest
import torch
from torch import nn

from src.callbacks import OutputCheck
from src.callbacks.output_check import find_problem

LOGITS = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
ENTROPY, LIKELIHOOD = nn.CrossEntropyLoss(), nn.NLLLoss()


@pytest.mark.parametrize(
    ("outputs", "criterion", "word"),
    [
        (LOGITS.softmax(1), ENTROPY, "leave softmax out"),
        (LOGITS.softmax(1).bfloat16(), ENTROPY, "leave softmax out"),
        (LOGITS.log_softmax(1), ENTROPY, "leave log_softmax out"),
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
