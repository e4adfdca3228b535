"""Every setting is known to one of the lists of what a resumed run may change."""

import pytest
from helpers import ROOT, composed
from omegaconf import OmegaConf

from src.runs.resume_settings import FIXED, FREE, ON_REQUEST, changes, kind
from src.runs.run_folder import flatten

GROUPS = ["data", "data/augment", "model", "optimizer", "scheduler", "trainer", "logger", "metrics"]
FILES = {
    group: sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")) for group in GROUPS
}
CHOICES = [f"{group}={name}" for group in GROUPS for name in FILES[group] if name != "base"]
RECIPES = [
    f"{group}={path.stem}"
    for group in ("experiment", "debug")
    for path in (ROOT / "conf" / group).glob("*.yaml")
]


@pytest.mark.parametrize("choice", ["seed=1", *CHOICES, *RECIPES])
def test_every_key_is_in_a_list(choice):
    keys = flatten(OmegaConf.to_container(composed([choice]), resolve=False))
    assert [key for key in keys if kind(key) is None] == []


def test_no_key_is_in_two_lists():
    assert len({*FREE, *ON_REQUEST, *FIXED}) == len(FREE) + len(ON_REQUEST) + len(FIXED)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("trainer.precision", "on request"),
        ("trainer.max_epochs", "free"),
        ("data.augment.flip", "on request"),
        ("data.own_argument", "fixed"),
        ("optimizer.lr", "fixed"),
        ("callbacks.my_own.x", "on request"),
        ("callbacks.best.monitor", "fixed"),
        ("callbacks.best.dirpath", "free"),
        ("own_key", None),
    ],
)
def test_the_longest_name_decides(key, expected):
    assert kind(key) == expected


def test_changes_leave_out_what_is_free():
    before = {"seed": 0, "data": {"root": "a", "batch_size": 8}, "own": 1}
    after = {"seed": 0, "data": {"root": "b", "batch_size": 9}}
    assert changes(before, after) == [
        {"key": "data.batch_size", "before": 8, "after": 9},
        {"key": "own", "before": 1, "after": None},
    ]
