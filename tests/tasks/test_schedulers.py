"""The schedules that torch does not have."""

import pytest
import torch

from src.errors import UserError
from src.tasks.schedulers import constant, warmup_cosine


def rates(build, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = build(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant():
    assert rates(constant, 3) == [0.1] * 3


def test_warmup_cosine_rises_then_falls():
    curve = rates(lambda o: warmup_cosine(o, 20, warmup=4), 20)
    assert curve[:5] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525, 0.1])
    assert curve[4:] == sorted(curve[4:], reverse=True) and curve[-1] < 0.002
    assert rates(lambda o: warmup_cosine(o, 20, warmup=0.0), 1) == [0.1]


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="does not fit"):
        rates(lambda o: warmup_cosine(o, 4, warmup=5), 1)
