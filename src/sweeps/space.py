"""The space of a search: the keys of a run, with the range or the choice of values of each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ..config.cli import MODES
from ..config.hydra_errors import to_user_error
from ..config.validate import validate
from ..errors import UserError
from .compose import compose_run

FORBIDDEN = ("test", "resume", "check", *MODES)


def read_space(node: DictConfig) -> dict[str, BaseDistribution]:
    """Read a file of conf/search.

    Raises:
        UserError: a value that is neither a range nor a choice.
    """
    if not node:
        raise UserError(
            "There is nothing to search.",
            "Choose search=optimizer, or write a file of your own into conf/search.",
        )
    for key in node:
        if setting_name(key) in FORBIDDEN:
            raise UserError(
                f"search: {key} cannot be searched.",
                "A search never sees the test split, and it resumes its trials by itself.",
            )
    return {key: _read_distribution(key, node[key]) for key in node}


def _read_distribution(key: str, value: Any) -> BaseDistribution:
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if isinstance(plain, list) and plain:
        return CategoricalDistribution(list(map(_storable, plain)))
    bounds = plain if isinstance(plain, dict) else {}
    named = {"low", "high"} <= set(bounds) <= {"low", "high", "log", "step"}
    kinds = {type(bounds[name]) for name in ("low", "high", "step") if name in bounds}
    if not named or not kinds <= {int, float}:
        raise UserError(
            f"search: {key} is neither a range nor a choice: {value}.",
            "Write {low: 1e-4, high: 1e-1, log: true} for a number, [sgd, adam] for a choice.",
        )
    try:
        return IntDistribution(**bounds) if kinds == {int} else FloatDistribution(**bounds)
    except ValueError as error:
        raise UserError(f"search: {key}: {error}", "Check low, high, log and step.") from None


def _storable(choice: Any) -> Any:
    """A value that Optuna can store."""
    return json.dumps(choice) if isinstance(choice, list | dict) else choice


def check_space(space: Mapping[str, BaseDistribution], fixed: Sequence[str]) -> None:
    """Compose a run at both ends of each range and with each choice.

    Args:
        fixed: the overrides of all trials.

    Raises:
        UserError: the first value that no run can have.
    """
    for override in fixed:
        if setting_name(override) in space:
            raise UserError(
                f"{setting_name(override)} is given and searched.",
                f"Leave {override} out, or the key out of conf/search.",
            )
    values = {key: _values(distribution) for key, distribution in space.items()}
    first = {key: options[0] for key, options in values.items()}
    for key, options in values.items():
        for value in options:
            overrides = [*fixed, *to_overrides(first | {key: value})]
            try:
                validate(OmegaConf.to_container(compose_run(overrides)))
            except (UserError, HydraException, OmegaConfBaseException) as error:
                cause = error if isinstance(error, UserError) else to_user_error(error)
                assert cause is not None  # there is one for all errors of Hydra
                raise UserError(f"search: {key}={value}: {cause.problem}", cause.remedy) from None


def _values(distribution: Any) -> Sequence[Any]:
    """All choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high


def setting_name(override: str) -> str:
    """The key of an override."""
    return override.partition("=")[0].lstrip("+~")


def to_overrides(settings: Mapping[str, Any]) -> list[str]:
    """The settings of a trial as they are typed."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]
