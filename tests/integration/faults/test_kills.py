"""Runs that are killed at a named point continue to the same end."""

import pytest
from integration.faults import plan
from integration.faults.lab import STANDARD, Fault, options_for
from integration.faults.promises import after_kill
from run_helpers import forks

pytestmark = forks


def test_a_kill_while_a_checkpoint_is_written(lab):
    fault = Fault("checkpoint", "SIGKILL", count=4)
    assert after_kill(lab, options_for(STANDARD, fault), fault) == []


@pytest.mark.slow
@pytest.mark.parametrize("trial", plan.kills(len(plan.COUNTS)), ids=lambda trial: trial.title)
def test_a_killed_run_ends_bit_equal(lab, trial):
    assert trial.run(lab) == []


@pytest.mark.slow
@pytest.mark.parametrize("trial", plan.finished(), ids=lambda trial: trial.title)
def test_a_resumed_finished_run_keeps_its_results(lab, trial):
    assert trial.run(lab) == []
