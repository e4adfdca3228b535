"""Faults of the machine: disks, memory, files, and a second process."""

import pytest
from integration.faults import plan
from integration.faults.lab import STANDARD, Fault, options_for, small_disk
from integration.faults.machine import accepted_flips, limited_at_start
from run_helpers import forks

FLIPS = 50
SEED = 0


@pytest.fixture(scope="module")
def mounts(tmp_path_factory) -> None:
    """Skip a test where no file system can be mounted."""
    try:
        with small_disk(tmp_path_factory.mktemp("disk") / "disk", "64k"):
            pass
    except OSError as error:
        pytest.skip(f"a file system cannot be mounted: {error}")


@forks
def test_a_full_disk_at_the_start_ends_with_two_lines(lab):
    assert limited_at_start(lab, options_for(STANDARD, Fault("", ""))) == []


def test_a_changed_bit_of_a_checkpoint_is_noticed(finished_run, tmp_path):
    assert accepted_flips(finished_run / "checkpoints" / "last.ckpt", tmp_path, FLIPS, SEED) == []


@pytest.mark.slow
@forks
@pytest.mark.parametrize("trial", plan.disks(), ids=lambda trial: trial.title)
def test_full_and_read_only_disks(lab, mounts, trial):
    assert trial.run(lab) == []


@pytest.mark.slow
@forks
@pytest.mark.parametrize("trial", plan.others(), ids=lambda trial: trial.title)
def test_faults_of_the_machine(lab, trial):
    assert trial.run(lab) == []
