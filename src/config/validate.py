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
from typing import Any, get_type_hints

from omegaconf import DictConfig
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import SchemaError

from ..errors import UserError
from ..tasks.optim import LENGTH_ARGUMENTS
from .hydra_errors import CONF, closest, did_you_mean
from .plain import resolved
from .settings import ROOT, annotation_of, check_groups, check_settings

# Arguments of a schedule that may be null: the length of the run and the learning rate replace it.
FILLED_IN = (*LENGTH_ARGUMENTS, "max_lr")


def validate(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Check a composed config.

    Raises:
        UserError: the first target, key or value that cannot work, and what can.
        Exception: whatever the import of a module raises.
    """
    config = resolved(cfg)
    for key, annotation in ROOT.items():
        if key in config:
            _check_value(key, config[key], annotation)
    is_run = "seed" in config  # not a part of it
    if is_run:
        check_groups(config)
    for path, node in targets(config):
        _check_arguments(path, node, locate(path, node["_target_"]))
    if is_run:
        check_settings(config)


def targets(config: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, node) of everything in a config that has a `_target_`."""
    if isinstance(config, list):
        config = dict(enumerate(config))
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))


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
            near = [".".join([*parts[:i], other, *parts[i + 1 :]]) for other in _like(part, found)]
            near = near or [".".join([*parts[:i], other]) for other in _classes(found)]
            raise UserError(
                f"{path}._target_={name} cannot be imported: there is no {module}.",
                did_you_mean(near) if near else remedy,
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


def _classes(module: Any) -> list[str]:
    """Names of the classes that a module of one or two classes defines."""
    if not isinstance(module, types.ModuleType):
        return []
    classes = [(name, value) for name, value in vars(module).items() if inspect.isclass(value)]
    own = [name for name, value in classes if value.__module__ == module.__name__]
    return own if len(own) <= 2 else []


def _like(name: str, found: Any) -> list[str]:
    """Attributes of a module or class, and modules of a package, with a similar name."""
    modules = pkgutil.iter_modules(getattr(found, "__path__", []))
    known = [*dir(found), *(module.name for module in modules)]
    return closest(name, known) if found is not None else []


@cache
def parameters(target: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """The arguments that a target takes by name, and whether it takes any others."""
    functions: list[Callable] = [target]
    if inspect.isclass(target):  # **kwargs are passed on to the next class
        classes = [cls for cls in target.__mro__ if cls is not object]
        functions = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
        if not functions and target.__new__ is object.__new__:
            return {}, False
    known: dict[str, inspect.Parameter] = {}
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
                known.setdefault(name, parameter.replace(annotation=hints.get(name, Any)))
        if not open_ended:
            return known, False
    return known, True


def _type_hints(function: Callable) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # annotations that only a type checker understands
        return {}


def _check_arguments(path: str, node: Mapping[str, Any], target: Callable) -> None:
    known, open_ended = parameters(target)
    _check_function(path, node, target, known)
    for key, value in node.items():
        full_key = f"{path}.{key}"
        own_annotation = annotation_of(full_key)
        is_filled_in = value is None and key in FILLED_IN
        if is_filled_in or (key.startswith("_") and key.endswith("_")):  # Hydra's own keys
            continue
        if value == "???":
            raise UserError(f"{full_key} is missing.", f"Add {full_key}=... to the command.")
        if key in known:
            annotation = own_annotation or known[key].annotation
            _check_value(full_key, value, annotation, known[key].default)
        elif own_annotation is not None:
            _check_value(full_key, value, own_annotation)
        elif not open_ended:
            near = [f"{path}.{other}" for other in closest(key, known)]
            raise UserError(
                f"{full_key}: {getattr(target, '__name__', target)} takes no argument {key}.",
                did_you_mean(near) if near else f"It takes {', '.join(known)}.",
            )


def _check_function(
    path: str, node: Mapping[str, Any], target: Callable, known: Mapping[str, inspect.Parameter]
) -> None:
    """Refuse a function, such as a loss, that would be called while the run is built."""
    if not inspect.isfunction(target) or node.get("_partial_"):
        return
    if path.startswith(("task.", "data.")):  # the others get arguments from the run
        empty = inspect.Parameter.empty
        missing = [key for key in known if known[key].default is empty and key not in node]
        if missing:
            raise UserError(
                f"{path}: the function {target.__name__} would be called without "
                f"{' and '.join(missing)}.",
                f"To pass the function itself, add +{path}._partial_=true, or _partial_: true "
                "below its _target_.",
            )


def _check_value(path: str, value: Any, annotation: Any, default: Any = None) -> None:
    if value == {}:  # what an empty YAML file gives
        value = None
    if (type(value) is type(default) and value == default) or any(targets(value)):
        return
    expected = mismatch(value, annotation)
    if expected is not None:
        shown = json.dumps(value) if isinstance(value, bool | None) else value
        has_default = isinstance(default, bool | int | float | str)
        leave_out = f"leave it out for the default, {json.dumps(default)}" if has_default else ""
        remedy = f"Correct the value of {path}{', or ' if has_default else ''}{leave_out}."
        remedy = _form_of(path, value, expected) or remedy
        raise UserError(f"{path}={shown}: input should be {expected}.", remedy)


def _form_of(path: str, value: Any, expected: str) -> str | None:
    """How a value is typed that is an object, or a duration; None for all others."""
    if "duration" in expected:
        return f"Write days:hours:minutes:seconds, such as {path}=00:12:00:00 for twelve hours."
    if "_target_" not in expected or not isinstance(value, str):
        return None
    group = path.replace(".", "/")
    if (CONF / group).is_dir():
        return f"{group} is a group: choose one of its files with {group}={value}."
    return f"Name its class: {path}._target_=MODULE.CLASS, such as torch.nn.MSELoss for a loss."


def mismatch(value: Any, annotation: Any) -> str | None:
    """What a value should be instead, in words, where it does not have the type; else None."""
    try:
        _adapter(annotation).validate_json(json.dumps(value), strict=True)
        return None
    except ValidationError as error:
        expected = [_describe(detail) for detail in error.errors()]
    except (PydanticUserError, PydanticUndefinedAnnotation, SchemaError, TypeError):
        return None  # pydantic cannot check this annotation, or JSON cannot hold this value
    if value is not None and mismatch(None, annotation) is None:
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
