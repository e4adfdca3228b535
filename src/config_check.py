"""A composed config against what it names: every `_target_` exists, takes the arguments it is given, and takes values of that type.

Nothing is built and no data are read: signatures and type annotations say it all. A type that cannot be judged passes.
"""

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from importlib import import_module
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from src.command_line import closest
from src.errors import UserError
from src.tasks.classification import LENGTHS

# What the keys outside of any target hold.
ROOT = {"seed": int, "resume": str | None, "onednn": bool | None, "test": bool, "check": bool | Literal["data"]}
GROUPS = ("data", "model", "task", "optimizer", "scheduler", "trainer", "callbacks")  # without `metrics` and `logger` a run can be
# Left open, these are filled in when the length of the run or the optimizer's rate is known.
FILLED_IN = (*LENGTHS, "max_lr")
# Counts that Lightning divides by without a look at them.
LEAST = {
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.log_every_n_steps": 0,
    "trainer.val_check_interval": 0,
}


def check(config: Mapping[str, Any]) -> None:
    """Check a config that is resolved to plain values.

    Raises:
        UserError: the first target, key or value that cannot work, and what can.
    """
    for key, kind in ROOT.items():
        if key in config:
            _check_value(key, config[key], kind)
    for group in GROUPS:
        if group not in config:  # NAME=[] takes it out
            raise UserError(f"Nothing is chosen for {group}.", f"Set {group}=NAME; python train.py --help lists the names.")
    for path, node in targets(config):
        target = locate(path, node["_target_"])
        known = _parameters(target)
        if path == "scheduler":  # Lightning's part of a schedule, which the task takes
            task = _parameters(locate("task", config["task"]["_target_"]))[0]
            known = ({**{name: task[name] for name in ("interval", "monitor")}, **known[0]}, known[1])
        elif path.startswith("callbacks."):
            known = ({"enabled": bool, **known[0]}, known[1])
        _check_arguments(path, node, target, *known)
    trainer, optimizer, scheduler = (config.get(name) or {} for name in ("trainer", "optimizer", "scheduler"))
    for key in ("max_epochs", "limit_train_batches", "limit_val_batches", "val_check_interval"):
        if trainer.get(key) == 0:
            raise UserError(f"trainer.{key}=0 leaves nothing to train or to choose a checkpoint by.", f"Give trainer.{key} more than 0.")
    if trainer.get("fast_dev_run"):
        raise UserError(
            "trainer.fast_dev_run keeps no checkpoint, and a run without one cannot be measured.",
            "Take check=true, or trainer.max_epochs=1 trainer.limit_train_batches=2 trainer.limit_val_batches=2.",
        )
    if isinstance(trainer.get("val_check_interval"), str | Mapping):
        raise UserError(
            f"trainer.val_check_interval={trainer['val_check_interval']}: a run that validates by the clock cannot be repeated.",
            "Give a share of an epoch or a number of batches.",
        )
    for path, least in LEAST.items():
        group, _, key = path.partition(".")
        value = (config.get(group) or {}).get(key)
        if isinstance(value, int | float) and value < least:
            raise UserError(f"{path}={value} does not work.", f"Give {path} {least} or more.")
    if str(scheduler.get("_target_")).endswith(".ReduceLROnPlateau") and scheduler.get("interval") == "step":
        raise UserError(
            f"scheduler.interval=step, but {scheduler.get('monitor')} is measured once an epoch.",
            "Leave scheduler.interval=epoch, or choose another scheduler.",
        )
    if optimizer.get("fused") and trainer.get("gradient_clip_val") and "mixed" in str(trainer.get("precision")):
        raise UserError(
            f"optimizer.fused=true cannot clip gradients (trainer.gradient_clip_val) under trainer.precision={trainer['precision']}.",
            "Leave optimizer.fused at null, or give up one of the other two.",
        )


def targets(config: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, node) of everything in a config that names a `_target_`."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for i, value in enumerate(config):
            yield from targets(value, f"{path}.{i}")


def locate(path: str, name: Any) -> Callable:
    """What a `_target_` names.

    Raises:
        UserError: it cannot be imported; the nearest names are given.
    """
    remedy = f"Check the _target_ line in conf/{path.split('.')[0]}/."
    parts = str(name).split(".")
    found: Any = None
    for i, part in enumerate(parts):
        try:
            if i == 0 or (isinstance(found, types.ModuleType) and not hasattr(found, part)):
                import_module(".".join(parts[: i + 1]))
            found = import_module(part) if i == 0 else getattr(found, part)
        except Exception as error:  # an import runs whatever stands in the module
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            near = closest(part, dir(found)) if found is not None else []
            hint = f"Did you mean {' or '.join('.'.join([*parts[:i], other, *parts[i + 1 :]]) for other in near)}?" if near else remedy
            raise UserError(f"{path}._target_={name} cannot be imported: {reason}.", hint) from None
    if not callable(found):
        raise UserError(f"{path}._target_={name} is a {type(found).__name__}, nothing that can be called.", remedy)
    return found


def _parameters(target: Callable) -> tuple[dict[str, Any], bool]:
    """Types by the names of the arguments that a target takes, and whether it takes others as well."""
    functions: list[Callable] = [target]
    if inspect.isclass(target):
        functions = [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
    known: dict[str, Any] = {}
    for function in functions:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # written in C
            return known, True
        try:
            hints = get_type_hints(function)
        except Exception:  # an annotation that only a type checker understands
            hints = {}
        open_end = False
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                open_end = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and name != "self":
                kind = hints.get(name, Any)
                if parameter.default is not parameter.empty:
                    kind = Annotated[kind, parameter.default]  # a default is always right, whatever its annotation says
                known.setdefault(name, kind)
        if not open_end:
            return known, False
    return known, True  # **kwargs all the way up


def _check_arguments(path: str, node: Mapping[str, Any], target: Callable, known: Mapping[str, Any], open_end: bool) -> None:
    name = getattr(target, "__name__", str(target))
    for key, value in node.items():
        if key.startswith("_") and key.endswith("_"):  # Hydra's own
            continue
        if key in known:
            if not (value is None and key in FILLED_IN):
                _check_value(f"{path}.{key}", value, known[key])
        elif not open_end:
            near = closest(key, known)
            takes = ", ".join(known)
            raise UserError(
                f"{path}.{key}: {name} takes no argument {key}.",
                f"Did you mean {' or '.join(f'{path}.{other}' for other in near)}?" if near else f"It takes {takes}.",
            )


def _check_value(path: str, value: Any, kind: Any) -> None:
    if not fits(None if value == {} else value, kind):  # an empty YAML file comes as {}
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        raise UserError(f"{path}={shown} is of the wrong kind.", f"{path} takes {describe(kind)}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value can stand where a type is asked for.

    A whole number may stand for a fraction, a list for a tuple or a set, text for a path; true is no number.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        kind, *defaults = arguments
        return any(type(value) is type(default) and value == default for default in defaults) or fits(value, kind)
    if kind is None or kind is types.NoneType:
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, Mapping) and "_target_" in value:
        return kind not in (bool, str)  # an object to be built
    container = origin or kind
    if not inspect.isclass(container) or container in (Any, object):
        return True  # Any, a type variable, an annotation left as text
    if isinstance(value, list):
        if container is tuple and arguments and arguments[1:] != (...,):
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        takes_lists = issubclass(list, container) or issubclass(container, tuple | AbstractSet)
        return takes_lists and all(fits(item, arguments[0]) for item in value if arguments)
    if isinstance(value, str):
        return issubclass(container, str | PurePath | Enum) or container.__name__ == "PathLike"
    try:
        return isinstance(value, container)
    except TypeError:  # a protocol that cannot be asked at run time
        return True


def describe(kind: Any) -> str:
    """A type in words, as far as it can be typed on a command line."""
    return " or ".join(dict.fromkeys(_words(kind))) or "an object"


def _words(kind: Any) -> Iterator[str]:
    origin, arguments = get_origin(kind), get_args(kind)
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "null", None: "null"}
    if origin is Annotated:
        yield from _words(arguments[0])
    elif origin in (Union, types.UnionType):
        for option in arguments:
            yield from _words(option)
    elif origin is Literal:
        yield ", ".join(str(option) for option in arguments)
    elif inspect.isclass(origin) and (issubclass(list, origin) or issubclass(origin, tuple | AbstractSet)):
        items = describe(arguments[0]) if arguments else ""
        count = "" if origin is not tuple or arguments[1:] == (...,) else f" of {len(arguments)}"
        yield f"a list{count}" + (f" ({items} each)" if items else "")
    elif kind in plain:
        yield plain[kind]
    elif inspect.isclass(kind) and (issubclass(kind, PurePath) or kind.__name__ == "PathLike"):
        yield "text"
    elif inspect.isclass(origin or kind) and issubclass(origin or kind, Mapping):
        yield "keys with values"
