"""Mistakes in settings that are found without building anything, and random values for all keys."""

import copy
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest
import yaml
from helpers import composed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import Field

from src.config.validate import locate, mismatch, parameters, validate
from src.errors import UserError

ROOT_KEYS = ("seed=", "test=", "check=")


@lru_cache
def plain(*groups: str) -> dict:
    """The config with these groups, composed once."""
    return OmegaConf.to_container(composed(list(groups)), resolve=True)


def changed(config: dict, key: str, value: Any) -> dict:
    """A copy of a config with another value at a dotted key."""
    config = copy.deepcopy(config)
    node = config
    *parents, name = key.split(".")
    for parent in parents:
        node = node[parent]
    node[name] = value
    return config


def validated(*overrides: str) -> None:
    """Validate a config with these overrides; only groups need Hydra."""
    settings = [override for override in overrides if "." in override.partition("=")[0]]
    settings += [override for override in overrides if override.startswith(ROOT_KEYS)]
    groups = [override for override in overrides if override not in settings]
    config = plain(*groups)
    for override in settings:
        key, _, value = override.lstrip("+").partition("=")
        config = changed(config, key, yaml.safe_load(value) if value else "")
    validate(config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.max_epochs=ten"], ["trainer.max_epochs=ten", "a valid integer or -1 or null"]),
        (["trainer.max_epochs=10.0"], ["a valid integer"]),
        (["trainer.max_epochs=true"], ["trainer.max_epochs=true"]),
        (["+model.dropuot=0.1"], ["SimpleV3 takes no argument dropuot", "model.dropout?"]),
        (["+scheduler.gama=1"], ["scheduler.gamma?"]),
        (["+data.augmnt=1"], ["data.augment?"]),
        (["optimizer.lr=abc"], ["optimizer.lr=abc", "a valid number"]),
        (["optimizer.lr="], ["optimizer.lr=", "a valid number"]),
        (["data.batch_size=1.5"], ["data.batch_size"]),
        (["data=image_folder", "data.val_size=some"], ["data.val_size"]),
        (["seed=1.5"], ["seed"]),
        (["test=maybe"], ["a valid boolean"]),
        (["task=[]"], ["Nothing is chosen for task", "task=NAME"]),
        (["scheduler=[]"], ["Nothing is chosen for scheduler"]),
        (["check=dta"], ["a valid boolean or 'data'"]),
        (["trainer.precision=15"], ["bf16-mixed"]),
        (["scheduler.interval=stp"], ["'epoch' or 'step'"]),
        (["optimizer=adam", "optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]"]),
        (["callbacks.early_stopping.enabled=x"], ["a valid boolean"]),
        (["task.loss.label_smoothing=x"], ["task.loss.label_smoothing"]),
        (["model._target_=src.models.LeNett"], ["src.models.LeNet or"]),
        (["model._target_=src.modles.LeNet"], ["src.models.LeNet"]),
        (["model._target_=src..LeNet"], ["cannot be imported"]),
        (["model._target_=nowhere.Net"], ["there is no nowhere"]),
        (["optimizer._target_=torch.optim"], ["cannot be called"]),
        (
            ["optimizer.fused=true", "trainer.gradient_clip_val=1", "trainer.precision=16-mixed"],
            ["optimizer.fused", "null"],
        ),
        (["scheduler=plateau", "scheduler.interval=step"], ["scheduler.interval=epoch"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0"]),
        (["trainer.limit_train_batches=0"], ["limit_train_batches=0"]),
        (["trainer.accumulate_grad_batches=0"], ["greater than or equal to 1"]),
        (["callbacks.ema.enabled=true", "callbacks.swa.enabled=true"], ["both average"]),
        (["data.augment=crop_flip"], ["data/augment=crop_flip"]),
        (["task.loss=mse"], ["task.loss._target_=", "torch.nn.MSELoss"]),
        (["trainer.max_time=1"], ["trainer.max_time=00:12:00:00"]),
        (
            ["task.loss._target_=torch.nn.functional.cross_entropy"],
            ["without input and target", "+task.loss._partial_=true"],
        ),
    ],
)
def test_mistakes_are_found(overrides, words):
    with pytest.raises(UserError) as caught:
        validated(*overrides)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.lr=1", "trainer.limit_train_batches=0.5", "trainer.precision=bf16-mixed"],
        ["trainer.deterministic=warn", "data.mean=[0.5]", "trainer.max_time=00:01:00:00"],
        ["data/augment=rand_augment", "scheduler=onecycle", "logger=csv"],
        ["logger=[]", "metrics=[]"],
        ["task.loss._target_=torch.nn.functional.cross_entropy", "+task.loss._partial_=true"],
        ["+trainer.fast_dev_run=true", "trainer.val_check_interval=00:00:10:00"],
        ["+trainer.profiler={_target_: lightning.pytorch.profilers.SimpleProfiler}"],
    ],
)
def test_what_works_passes(overrides):
    validated(*overrides)


def test_types():
    class Own: ...

    class Shape(Protocol):
        def area(self) -> float: ...

    for value, annotation in (
        (1, float),
        (None, int | None),
        ("warn", bool | Literal["warn"]),
        ([1, 2], tuple[float, float]),
        ([1], list[int]),
        ("x", Any),
        ({"a": 1}, dict[str, int]),
        ("x", str | os.PathLike),
        ("x", Path),
        ("x", Shape),  # cannot be checked
        ("x", "Undefined"),
        ([0.9, 0.1], Sequence[float]),
        (1, Annotated[int, Field(ge=1)]),
        (None, Annotated[int, Field(ge=1)] | None),
        (None, Annotated[int | None, Field(ge=1)]),
        (0.5, Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]),
    ):
        assert mismatch(value, annotation) is None, (value, annotation)
    for value, annotation in (
        (True, int),
        (1.5, int),
        ("1", float),
        (None, float),
        ([1], tuple[int, int]),
        ("ab", list[str]),
        (["a"], list[int]),
        (3, Own),
        (3, Path),
        ("x", Callable),
        (0, Annotated[int, Field(ge=1)]),
        (1.5, Annotated[int, Field(ge=1)] | None),
        (1.5, Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]),
        ("x", Literal["stretch", "crop"]),
    ):
        assert mismatch(value, annotation), (value, annotation)
    assert mismatch(3, Own) == "an object with a _target_"
    assert mismatch("x", int | list[int] | None) == "a valid integer or a valid array or null"


def test_ranges_and_choices_in_a_signature():
    class Data:
        def __init__(self, size: Annotated[int, Field(ge=1)] | None = 8, **kwargs): ...

    (size,) = [parameter for name, parameter in parameters(Data)[0].items() if name == "size"]
    assert mismatch(None, size.annotation) is None and mismatch(1, size.annotation) is None
    assert mismatch(0, size.annotation) == "greater than or equal to 1 or null"
    assert mismatch("x", Literal["stretch", "crop"]) == "'stretch' or 'crop'"


def test_arguments_are_passed_on_to_the_base_class():
    class Base:
        def __init__(self, width: int): ...

    class Derived(Base):
        def __init__(self, depth: int = 1, **kwargs): ...

    known, open_ended = parameters(Derived)
    assert set(known) == {"depth", "width"} and not open_ended


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("class Net(:", SyntaxError),
        ("raise RuntimeError('of the module')", RuntimeError),
        ("import not_installed_anywhere", ModuleNotFoundError),
        ("from torch import not_there", ImportError),
        ("undefined_name", NameError),
    ],
)
def test_errors_while_a_module_is_imported_are_not_changed(code, error, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_module", raising=False)
    with pytest.raises(error) as caught:
        locate("model", "broken_module.Net")
    assert type(caught.value) is error


# Random values: refused with two lines, or they pass; anything else is a fault of `validate`.

GROUPS = [
    *(f"optimizer={name}" for name in ("sgd", "adam", "rmsprop", "adagrad", "asgd")),
    *(f"scheduler={name}" for name in ("step", "cosine", "onecycle", "warmup_cosine", "plateau")),
    "callbacks.early_stopping.enabled=true",
    "data=image_folder",
]
SPECIAL = ["null", "true", "false", "abc", "''", "[]", "[1]", "[0.5,0.5]", "[1,x]", "{a:1}"]
VALUES = st.one_of(
    st.sampled_from([*SPECIAL, "nan", "inf", "-1", "0", "1e20"]),
    st.integers(-3, 5).map(str),
    st.floats(-2, 4, allow_nan=False).map(lambda x: repr(round(x, 3))),
)


def leaves(config: dict, above: str = "") -> list[str]:
    """Dotted keys of everything that can be set."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{above}{key}.")
        else:
            found.append(f"{above}{key}")
    return found


@settings(
    max_examples=80,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_random_values_pass_or_are_refused(data):
    group = data.draw(st.sampled_from(GROUPS))
    key = data.draw(st.sampled_from(leaves(plain(group))))
    try:
        validate(changed(plain(group), key, yaml.safe_load(data.draw(VALUES))))
    except UserError as error:
        assert error.problem and error.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1.5),
        ("seed", []),
        ("test", "maybe"),
        ("trainer.max_epochs", True),
        ("trainer.log_every_n_steps", -1),
        ("trainer.check_val_every_n_epoch", 0),
        ("trainer.val_check_interval", 0),
        ("trainer.val_check_interval", -1),
        ("scheduler.interval", 0),
        ("data.val_size", "x"),
    ],
)
def test_values_that_were_once_taken_for_others(key, value):
    with pytest.raises(UserError, match=key):
        validate(changed(plain(), key, value))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["+callbacks.early_stoping.enabled=true"], "callbacks.early_stoping has no _target_"),
        (["+callbacks.x={_target_: src.callbacks.ClassWeights, every: 3}"], "no argument every"),
        (["task=classification", "+task.teacher=???"], "task.teacher"),
    ],
)
def test_mistakes_in_parts(typed, words):
    with pytest.raises(UserError, match=words):
        validate(composed(typed))
