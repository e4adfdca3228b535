"""SIGTERM and Ctrl-C at named points of whole runs."""

import signal

import pytest
from integration.faults import plan
from integration.faults.lab import STANDARD, Fault, options_for
from integration.faults.promises import after_signal
from run_helpers import forks

from src.runs.run_folder import status

pytestmark = forks


def test_a_signal_saves_the_run_which_ends_equal_when_resumed(lab):
    fault = Fault("mid_epoch", "SIGTERM", count=15)
    assert after_signal(lab, options_for(STANDARD, fault), fault) == []


@pytest.mark.slow
@pytest.mark.parametrize("trial", plan.signals(len(plan.COUNTS)), ids=lambda trial: trial.title)
def test_a_signal_ends_a_run_as_promised(lab, trial):
    assert trial.run(lab) == []


def test_a_second_interrupt_stops_at_once(lab):
    folder = lab.folder()
    fault = Fault("mid_epoch", "SIGINT_twice", count=5)
    ended = lab.run(folder, options_for(STANDARD, fault), fault)
    assert ended.reached and ended.code == -signal.SIGINT
    assert status(folder) == "running"  # what every killed run looks like
