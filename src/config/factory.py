"""Calling what a `_target_` names, and the errors of settings that a library refuses."""

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
    try:
        made = instantiate(node, _convert_="all", _partial_=True)
        return partial(made.func, *made.args, **made.keywords)
    except InstantiationException as error:
        failure: BaseException = error
    while isinstance(failure, InstantiationException) and failure.__cause__ is not None:
        failure = failure.__cause__  # what Hydra has wrapped
    refused = _refused(group, failure)
    if refused is None:
        raise failure
    raise refused from failure


def call(group: str, node: Mapping[str, Any], **objects: Any) -> Any:
    """Call the target of a config node with its arguments and with objects.

    Hydra does not see the objects, so it cannot copy them.

    Raises:
        UserError: arguments that are missing, or values that a library refuses.
        Exception: whatever the code of the target raises.
    """
    return guarded(group, partial_instantiate(group, node), **objects)


def guarded(group: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a function; an error that no code but a library's has raised becomes a `UserError`."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        refused = _refused(group, error)
        if refused is None:
            raise
        raise refused from error


def _refused(group: str, error: BaseException) -> UserError | None:
    """A library's error about settings, as such; None for an error of any other code.

    Errors without a frame of their own are of arguments that are missing, or of code in C.
    """
    if isinstance(error, UserError) or any(own_frames(error)):
        return None
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames[-1] != __file__ and not is_library(frames[-1]):
        return None
    return UserError(
        f"{group}: {' '.join(str(error).split()) or type(error).__name__}",
        f"Check the keys under {group}, +{group}.NAME=... adds one; "
        "python train.py --cfg job shows them.",
    )
