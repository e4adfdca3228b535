"""Calling what a `_target_` names, and the errors of settings that a library refuses."""

import inspect
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from ..errors import UserError
from .tracebacks import is_library, own_frames


def partial_instantiate(group: str, node: Mapping[str, Any]) -> partial:
    """The target of a config node with its arguments, still to be called.

    It is a plain partial, since Hydra's own checks its policy again in every call.

    Args:
        group: the dotted key of the node, for messages.
        node: plain values with a `_target_`; targets inside are built.

    Raises:
        UserError: values that a library refuses.
        Exception: whatever the code of a target inside raises.
    """
    failure: Exception | None = None
    try:
        made = instantiate(node, _convert_="all", _partial_=True)
    except InstantiationException as error:
        failure = _root_cause(error)
    if failure is not None:  # outside of the handler: the error keeps its own context
        refused = _refused(group, failure)
        if refused is None:
            raise failure
        raise refused from failure
    return partial(made.func, *made.args, **made.keywords)


def call(group: str, node: Mapping[str, Any], **objects: Any) -> Any:
    """Call the target of a config node with its arguments and with objects.

    Hydra does not see the objects, so it cannot copy them.

    Raises:
        UserError: arguments that are missing, or values that a library refuses.
        Exception: whatever the code of the target raises.
    """
    function = partial_instantiate(group, node)
    _check_required(group, function, objects)
    return guarded(group, function, **objects)


def guarded(group: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a function; an error that no code but a library's has raised becomes a `UserError`."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        refused = _refused(group, error)
        if refused is None:
            raise
        raise refused from error


def _check_required(group: str, function: partial, objects: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in named and parameter.default is parameter.empty and name not in objects
    ]
    if missing:
        target = getattr(function.func, "__name__", str(function.func))
        raise UserError(
            f"{group}: {target} needs {', '.join(missing)}.",
            f"Add {' '.join(f'+{group}.{name}=...' for name in missing)}, or write it in its YAML.",
        )


def _refused(group: str, error: Exception) -> UserError | None:
    """A library's error about settings, as such; None for an error of any other code."""
    if isinstance(error, UserError) or any(own_frames(error)):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or not is_library(frames[-1].f_code.co_filename):
        return None
    return UserError(
        f"{group}: {' '.join(str(error).split()) or type(error).__name__}",
        f"Check the keys under {group}; python train.py --cfg job shows them.",
    )


def _root_cause(error: Exception) -> Exception:
    """What Hydra has wrapped."""
    while isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
