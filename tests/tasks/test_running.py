"""Running metrics of training: means over images, and continued from a checkpoint."""

import pytest
import torch

from src.tasks.running import RunningMetrics


class OneProcess:
    """A strategy as the running metrics use it."""

    def reduce(self, tensor, reduce_op):
        return tensor


def test_running_metrics_are_means_over_images():
    running = RunningMetrics()
    logits, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1])
    running.update(torch.tensor(1.0), logits, labels)
    running.update(torch.tensor(4.0), logits[:1], labels[:1])
    assert running.close_interval(OneProcess()) == running.last_loss == pytest.approx(7 / 4)
    running.update(torch.tensor(1.0), logits[:1], torch.tensor([[0.1, 0.9]]))  # soft labels
    assert running.close_interval(OneProcess()) == 1.0
    assert running.compute() == pytest.approx({"loss": 8 / 5, "acc": 3 / 5})


def test_running_metrics_without_logits_have_no_accuracy():
    running = RunningMetrics()
    assert running.compute() == {}
    running.update(torch.tensor(2.0), None, torch.tensor([0, 1]))
    running.close_interval(OneProcess())
    assert running.compute() == {"loss": 2.0}


def test_running_metrics_continue_from_their_state():
    first, second = RunningMetrics(), RunningMetrics()
    logits, labels = torch.eye(2), torch.tensor([0, 0])
    for running in (first, second):
        running.update(torch.tensor(1.0), logits, labels)
        running.close_interval(OneProcess())
        running.update(torch.tensor(3.0), logits, labels)
    third = RunningMetrics()
    third.stored = second.state()
    third.reset(torch.device("cpu"))
    for running in (first, third):
        running.update(torch.tensor(5.0), logits, labels)
        running.close_interval(OneProcess())
    assert third.compute() == first.compute() == {"loss": 3.0, "acc": 0.5}
