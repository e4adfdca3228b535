"""A resolved config against what it names: targets, names of arguments, types of values.

Nothing is built and no data are read. An annotation that cannot be checked passes.
"""

import inspect
import json
import pkgutil
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import SchemaError

from ..errors import UserError
from ..tasks.optim import LENGTH_ARGUMENTS
from .hydra_errors import closest, did_you_mean
from .settings import check_settings

# Keys that belong to no target.
ROOT = {
    "seed": int,
    "resume": str | None,
    "test": bool,
    "check": bool | Literal["data"],
    "find_lr": bool,
    "reproduce": str | None,
}
# Keys of a node that are taken before its target is called.
TIMING = {"interval": Literal["epoch", "step"], "monitor": str}  # of a schedule, for the task
# Arguments of a schedule that may be null: the length of the run and the learning rate replace it.
FILLED_IN = (*LENGTH_ARGUMENTS, "max_lr")


class Parameter(NamedTuple):
    """An argument that a target takes."""

    annotation: Any
    default: Any  # Parameter.empty where there is none


def validate(config: Mapping[str, Any]) -> None:
    """Check a config of plain values.

    Raises:
        UserError: the first target, key or value that cannot work, and what can.
        Exception: whatever the import of a module raises.
    """
    for key, annotation in ROOT.items():
        if key in config:
            _check_value(key, config[key], Parameter(annotation, inspect.Parameter.empty))
    for path, node in targets(config):
        target = locate(path, node["_target_"])
        known, open_ended = parameters(target)
        _check_arguments(path, node, target, _taken_before(path) | known, open_ended)
    if "seed" in config:  # of a run, not of a part of it
        check_settings(config)


def targets(config: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, node) of everything in a config that has a `_target_`."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for i, value in enumerate(config):
            yield from targets(value, f"{path}.{i}")


def locate(path: str, name: Any) -> Callable:
    """The object that a `_target_` names.

    Raises:
        UserError: there is none; the nearest names are proposed.
        Exception: whatever the import of its module raises.
    """
    remedy = f"Check the _target_ line in conf/{path.split('.')[0]}/."
    parts = str(name).split(".")
    found: Any = None
    for i, part in enumerate(parts):
        module = ".".join(parts[: i + 1])
        if found is not None and hasattr(found, part):
            found = getattr(found, part)
        elif (found is None or isinstance(found, types.ModuleType)) and _import_exists(module):
            found = import_module(module)
        else:
            near = closest(part, _names_in(found))
            proposals = [".".join([*parts[:i], other, *parts[i + 1 :]]) for other in near]
            raise UserError(
                f"{path}._target_={name} cannot be imported: there is no {module}.",
                did_you_mean(proposals) if near else remedy,
            )
    if not callable(found):
        kind = type(found).__name__
        raise UserError(f"{path}._target_={name} is a {kind} and cannot be called.", remedy)
    return found


def _import_exists(module: str) -> bool:
    """Whether a module exists; importing it may still fail in its own code."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return False
        raise
    except ValueError:  # an empty part of a dotted name
        return False
    return True


def _names_in(found: Any) -> list[str]:
    """Attributes of a module or class, and the modules of a package."""
    modules = pkgutil.iter_modules(getattr(found, "__path__", []))
    return [*dir(found), *(module.name for module in modules)] if found is not None else []


@cache
def parameters(target: Callable) -> tuple[dict[str, Parameter], bool]:
    """The arguments that a target takes by name, and whether it takes any others."""
    functions: list[Callable] = [target]
    if inspect.isclass(target):  # **kwargs are passed on to the next class
        functions = [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
    known: dict[str, Parameter] = {}
    for function in functions:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # written in C
            return known, True
        hints = _type_hints(function)
        open_ended = False
        for name, parameter in signature.parameters.items():
            open_ended |= parameter.kind is parameter.VAR_KEYWORD
            variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if not variable and name != "self":
                known.setdefault(name, Parameter(hints.get(name, Any), parameter.default))
        if not open_ended:
            return known, False
    return known, True


def _type_hints(function: Callable) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # annotations that only a type checker understands
        return {}


def _taken_before(path: str) -> dict[str, Parameter]:
    empty = inspect.Parameter.empty
    if path == "scheduler":
        return {name: Parameter(annotation, empty) for name, annotation in TIMING.items()}
    if path.startswith("callbacks.") and path.count(".") == 1:
        return {"enabled": Parameter(bool, empty)}
    return {}


def _check_arguments(
    path: str,
    node: Mapping[str, Any],
    target: Callable,
    known: Mapping[str, Parameter],
    open_ended: bool,
) -> None:
    name = getattr(target, "__name__", str(target))
    for key, value in node.items():
        if key.startswith("_") and key.endswith("_"):  # Hydra's own
            continue
        if key in known:
            if not (value is None and key in FILLED_IN):
                _check_value(f"{path}.{key}", value, known[key])
        elif not open_ended:
            near = closest(key, known)
            raise UserError(
                f"{path}.{key}: {name} takes no argument {key}.",
                did_you_mean(f"{path}.{other}" for other in near)
                if near
                else f"It takes {', '.join(known)}.",
            )


def _check_value(path: str, value: Any, parameter: Parameter) -> None:
    if value == {}:  # what an empty YAML file gives
        value = None
    same_as_default = type(value) is type(parameter.default) and value == parameter.default
    if same_as_default or any(targets(value)):
        return
    expected = mismatch(value, parameter.annotation)
    if expected is None:
        return
    shown = json.dumps(value) if isinstance(value, bool | None) else value
    default = parameter.default
    if isinstance(default, bool | int | float | str):
        remedy = f"Leave {path} out for the default, {json.dumps(default)}, or correct the value."
    else:
        remedy = f"Correct the value of {path}."
    raise UserError(f"{path}={shown}: input should be {expected}.", remedy)


def mismatch(value: Any, annotation: Any) -> str | None:
    """What a value should be instead, in words, where it does not have the type; else None."""
    try:
        _adapter(annotation).validate_json(json.dumps(value), strict=True)
        return None
    except ValidationError as error:
        expected = [_describe(detail) for detail in error.errors()]
    except (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError):
        return None  # pydantic cannot check this annotation, or JSON cannot hold this value
    if types.NoneType in get_args(annotation):
        expected.append("null")
    return " or ".join(dict.fromkeys(expected))


def _describe(detail: Any) -> str:
    if detail["type"] in ("needs_python_object", "callable_type"):
        return "an object with a _target_"
    message = detail["msg"].removeprefix("Input should be ")
    return message[0].lower() + message[1:]


@cache
def _adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
