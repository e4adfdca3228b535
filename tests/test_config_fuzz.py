"""Random values for every listed key: either two lines, or a run that trains with what its config.yaml says."""

import math
import os
import signal
from pathlib import Path

import pytest
import yaml
from conftest import composed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src import training
from src.command_line import hydra_problem
from src.errors import UserError

BASE = ["model=simple_v3", "data.image_size=16", "data/augment=crop_flip", "logger=none", "trainer.accelerator=cpu", "test=false"]
BASE += ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.log_every_n_steps=1"]
BASE += ["trainer.max_time=00:00:00:20"]  # max_epochs=-1 means for ever, null a thousand
GROUPS = [
    "optimizer=sgd",
    "optimizer=adam",
    "optimizer=rmsprop",
    "optimizer=adagrad",
    "optimizer=asgd",
    "scheduler=step",
    "scheduler=cosine",
]
GROUPS += [
    "scheduler=onecycle",
    "scheduler=warmup_cosine",
    "scheduler=plateau",
    "scheduler=multistep",
    "callbacks.early_stopping.enabled=true",
]
# Left out: what needs several devices or minutes, and what is no setting of the run itself.
SKIPPED = ("trainer.devices", "trainer.num_nodes", "trainer.strategy", "task.compile", "resume", "check", "data.root")
ANYTHING = st.one_of(
    st.sampled_from(["null", "true", "false", "abc", "''", "[]", "[1]", "[0.5,0.5]", "[1,x]", "{a:1}", "nan", "inf", "-1", "0", "1e20"]),
    st.integers(-3, 5).map(str),
    st.floats(-2, 4, allow_nan=False).map(lambda x: repr(round(x, 3))),
)
LIKELY = ["0", "1", "2", "3", "0.0", "0.1", "0.5", "0.9", "1.0", "2.5", "-0.1", "true", "false", "null"]


def leaves(config: dict, above: str = "") -> list[str]:
    """Dotted keys of everything that can be set."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{above}{key}.")
        elif key != "_target_":
            found.append(f"{above}{key}")
    return found


def keys(group: str) -> list[str]:
    listed = leaves(OmegaConf.to_container(composed([*BASE, group]), resolve=True))
    return [key for key in listed if key not in SKIPPED]


@st.composite
def lines(draw) -> tuple[str, str, str]:
    """(group, key, value)"""
    group = draw(st.sampled_from(GROUPS))
    key = draw(st.sampled_from(keys(group)))
    return group, key, draw(st.one_of(ANYTHING, st.sampled_from(LIKELY)))


def run_and_compare(group: str, key: str, value: str, folder: Path, monkeypatch) -> str:
    """Train with one value changed. Returns `refused` or `trained`; fails on anything else."""
    made: dict = {}

    def keep(name):
        original = getattr(training, name)

        def kept(*args, **kwargs):
            made[name] = original(*args, **kwargs)
            return made[name]

        monkeypatch.setattr(training, name, kept)

    with monkeypatch.context() as monkeypatch:
        keep("build")
        keep("build_trainer")
        try:
            cfg = composed([*BASE, group, f"{key}={value}"])
        except Exception as error:
            assert hydra_problem(error), error
            return "refused"
        try:
            training.train(cfg, folder)
        except UserError as error:
            assert error.problem and error.remedy
            return "refused"
    written = yaml.safe_load((folder / "config.yaml").read_text())
    data, task = made["build"]
    trainer = made["build_trainer"]
    for path, config, live in (
        ("data", written["data"], data),
        ("data.augment", written["data"]["augment"], data.augment),
        ("trainer", written["trainer"], trainer),
        ("scheduler", written["scheduler"], trainer.lr_scheduler_configs[0].scheduler if trainer.lr_scheduler_configs else None),
        ("task", written["task"], task),
        *((f"callbacks.{name}", node, find_callback(trainer, node)) for name, node in written["callbacks"].items()),
    ):
        for name, wanted in (config or {}).items():
            used = getattr(live, name, None)
            if wanted is not None and used is not None and not callable(used) and f"{path}.{name}" not in CHANGED_BY_DESIGN:
                assert_same(f"{path}.{name}", wanted, used)
    for name, wanted in written["optimizer"].items():
        if wanted is not None and name in trainer.optimizers[0].defaults:
            assert_same(f"optimizer.{name}", wanted, trainer.optimizers[0].defaults[name])
    assert_same("seed", written["seed"], find(trainer.callbacks, "StepSeed").seed)
    for name, wanted in written["model"].items():
        assert_same(f"model.{name}", wanted, task.description["model"][name])
    return "trained"


# The same thing under another name, or worked out from it by Lightning.
CHANGED_BY_DESIGN = {
    "trainer.accelerator",  # objects
    "trainer.strategy",
    "trainer.profiler",
    "trainer.precision",  # 32 is called 32-true
    "trainer.limit_train_batches",  # overfit_batches takes their place
    "trainer.limit_val_batches",
    "trainer.num_sanity_val_steps",  # -1 is inf
    "trainer.max_epochs",  # compared below by the rows of metrics.csv where it is whole
    "data.augment",  # an object
    "data.root",
    "callbacks.best.dirpath",
    "callbacks.early_stopping.min_delta",  # its sign follows the mode
    "task.loss",
    "scheduler.monitor",
}


def assert_same(name: str, wanted, live) -> None:
    if isinstance(live, Path):
        live = str(live)
    if isinstance(wanted, list | tuple) or isinstance(live, list | tuple):
        if isinstance(wanted, int | float) and isinstance(live, list | tuple):
            wanted = [wanted] * len(live)
        if name == "data.mean" or name == "data.std":  # one value a channel
            wanted = list(wanted)
        assert list(wanted) == list(live), (name, wanted, live)
    elif isinstance(live, dict):  # MultiStepLR counts its milestones
        assert sorted(wanted) == sorted(live), (name, wanted, live)
    elif isinstance(wanted, float) and math.isnan(wanted):
        assert math.isnan(live), (name, wanted, live)
    else:
        assert wanted == live and isinstance(wanted, bool) == isinstance(live, bool), (name, wanted, live)


def find(callbacks, name):
    return next((callback for callback in callbacks if type(callback).__name__ == name), None)


def find_callback(trainer, node):
    return find(trainer.callbacks, node["_target_"].rpartition(".")[2]) if node else None


common = {
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],  # an example is three words: nothing to make smaller
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


@pytest.mark.slow
@settings(max_examples=12, derandomize=True, **common)
@given(lines())
def test_a_dozen_values(tmp_path_factory, monkeypatch, line):
    run_and_compare(*line, tmp_path_factory.mktemp("run"), monkeypatch)


outcomes: list[str] = []


def hangs(*_) -> None:
    raise TimeoutError("this value neither trains nor is refused")


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")), print_blob=True, **common)
@given(lines())
def test_two_hundred_values(tmp_path_factory, monkeypatch, line):
    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(300)
    outcomes.append(run_and_compare(*line, tmp_path_factory.mktemp("run"), monkeypatch))
    signal.alarm(0)
    if len(outcomes) % 50 == 0:
        print(f"{len(outcomes)} examples: {outcomes.count('trained')} trained, {outcomes.count('refused')} refused in two lines")


@pytest.mark.parametrize(
    "line",
    [
        ("scheduler=step", "data.image_size", "0"),
        ("scheduler=step", "data.eval_batch_size", "0"),
        ("scheduler=step", "data.channels", "2"),
        ("scheduler=step", "data.val_size", "10.5"),
        ("scheduler=step", "data.mean", "[]"),
        ("scheduler=step", "data.std", "[0]"),
        ("scheduler=step", "seed", "1.5"),
        ("scheduler=step", "test", "maybe"),
        ("scheduler=step", "trainer.max_epochs", "true"),
        ("scheduler=step", "data.num_workers", "-1"),
        ("scheduler=step", "trainer.log_every_n_steps", "-1"),
        ("scheduler=step", "task.loss.label_smoothing", "2"),
        ("scheduler=step", "trainer.accumulate_grad_batches", "0"),
        ("scheduler=step", "trainer.check_val_every_n_epoch", "0"),
        ("scheduler=step", "scheduler.interval", "0"),
        ("scheduler=step", "scheduler.step_size", "0"),
        ("scheduler=step", "data.mixup", "nan"),
        ("scheduler=cosine", "scheduler.T_max", "0"),
        ("scheduler=onecycle", "scheduler.pct_start", "0.5"),  # of two steps
        ("scheduler=step", "seed", "[]"),
        ("scheduler=step", "trainer.val_check_interval", "0"),
        ("scheduler=step", "trainer.val_check_interval", "3"),
        ("scheduler=step", "trainer.val_check_interval", "-1"),
    ],
)
def test_values_that_were_once_taken_for_others(line, tmp_path, monkeypatch):
    assert run_and_compare(*line, tmp_path, monkeypatch) == "refused"


def test_one_picture_is_measured(tmp_path, monkeypatch):
    assert run_and_compare("scheduler=step", "data.eval_batch_size", "1", tmp_path, monkeypatch) == "trained"


def test_a_loss_once_an_epoch(tmp_path, monkeypatch):
    assert run_and_compare("scheduler=step", "trainer.log_every_n_steps", "0", tmp_path, monkeypatch) == "trained"
