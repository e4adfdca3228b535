"""Errors of Hydra and OmegaConf about the command line as a problem and a remedy.

They are made from the data that the exceptions carry and from the settings that were typed.
"""

import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ..errors import UserError
from .tracebacks import own_frames, raised_in

CONF = Path(__file__).resolve().parents[2] / "conf"


def closest(name: str, known: Iterable[str]) -> list[str]:
    """The names most like `name`, best first; empty where none is like it."""
    return get_close_matches(name, list(known), n=3, cutoff=0.6)


def did_you_mean(names: Iterable[str]) -> str:
    """A question that proposes these names."""
    return f"Did you mean {' or '.join(names)}?"


def to_user_error(error: Exception) -> UserError | None:
    """What an error of Hydra, OmegaConf or the disk says about the command line.

    Returns:
        None for any other error.
    """
    if isinstance(error, MissingConfigException):
        return _missing_file(error)
    if isinstance(error, OverrideParseException):
        return UserError(
            f"{error.override} cannot be read.",
            "Write KEY=VALUE without blanks around =, and quote what the shell would change: "
            "'optimizer.betas=[0.9,0.99]'.",
        )
    if any(own_frames(error)):
        return None
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.key is not None:
        return _unknown_key(cause)
    if isinstance(error, OSError) and error.filename is not None:
        return UserError(
            f"{error.filename} cannot be written or read: {error.strerror}.",
            "Choose another folder with hydra.run.dir=FOLDER, or make room.",
        )
    about_values = isinstance(error, OmegaConfBaseException) and not isinstance(
        error, ConfigKeyError | ConfigAttributeError
    )
    if about_values or isinstance(error, HydraException):
        return UserError(_first_line(error), _general_remedy())
    if isinstance(error, TypeError | ValueError) and raised_in(error, "hydra", "omegaconf"):
        return _group_without_name() or UserError(_first_line(error), _general_remedy())
    return None


def _group_without_name() -> UserError | None:
    """A group that was set to null or to a number."""
    for argument in sys.argv[1:]:
        group, equals, value = argument.partition("=")
        if equals and (CONF / group).is_dir() and not isinstance(yaml.safe_load(value), str | list):
            return UserError(
                f"{argument}: a group is set to the name of one of its files.",
                f"Type {group}=NAME, or {group}=[] for none of them.",
            )
    return None


def _missing_file(error: MissingConfigException) -> UserError:
    """A file of a group, or the main file, that does not exist."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or []) or _options(group)
    if not options:
        return UserError(_first_line(error), _general_remedy())
    near = closest(name, options)
    proposal = f"{did_you_mean(f'{group}={other}' for other in near)} " if near else ""
    return UserError(
        f"There is no {group}={name}.", f"{proposal}Choose one of: {', '.join(options)}."
    )


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml")) if group else []


def _unknown_key(cause: Any) -> UserError:
    """A key that the config does not have, with the nearest keys that it has."""
    missing = str(cause.full_key or cause.key)
    typed = _typed_key(missing)
    if missing.startswith(f"{typed}."):  # the key exists, but not what the value adds to it
        return UserError(
            f"{typed} has no {missing.removeprefix(f'{typed}.')} yet.",
            f"Add it with a plus sign: '+{typed}=...'.",
        )
    parent = cause.parent_node if isinstance(cause.parent_node, DictConfig) else None
    siblings = [str(key) for key in parent] if parent is not None else []
    above = missing.removesuffix(str(cause.key))  # ends with a dot, or is empty
    rest = typed.removeprefix(missing)
    near = [f"{above}{key}{rest}" for key in closest(str(cause.key), siblings)]
    if "/" in typed:
        groups = [path.relative_to(CONF) for path in CONF.rglob("*") if path.is_dir()]
        near = closest(typed, [path.as_posix() for path in groups])
    if not near and not above and parent is not None:  # in the wrong place, such as lr=0.1
        near = list(_keys_named(typed, OmegaConf.to_container(parent)))
    if near:
        return UserError(f"There is no setting {typed}.", did_you_mean(near))
    listed = ", ".join(key for key in siblings if not key.startswith("_") and key != "hydra")
    known = f"{above.rstrip('.') or 'The config'} has {listed}; " if listed else ""
    return UserError(f"There is no setting {typed}.", f"{known}+{typed}=... adds a key.")


def _typed_key(missing: str) -> str:
    """The key on the command line that an error about the key `missing` belongs to."""
    typed = [argument.partition("=")[0].lstrip("+~") for argument in sys.argv[1:]]
    related = (
        key
        for key in typed
        if key == missing or key.startswith(f"{missing}.") or missing.startswith(f"{key}.")
    )
    return next(related, missing)


def _keys_named(name: str, config: Any, above: str = "") -> Iterator[str]:
    """Dotted keys with this last part, except those of Hydra's own settings."""
    for key, value in config.items():
        if key == name:
            yield f"{above}{key}"
        if isinstance(value, dict) and f"{above}{key}" != "hydra":
            yield from _keys_named(name, value, f"{above}{key}.")


def _first_line(error: BaseException) -> str:
    """The first line of the message, with that of the cause where it adds something."""
    lines = [_line(error)]
    if error.__cause__ is not None and _line(error.__cause__) not in lines[0]:
        lines.append(f"({_line(error.__cause__)})")
    return " ".join(lines)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _general_remedy() -> str:
    if any(argument.startswith("+") for argument in sys.argv[1:]):
        return "A plus sign adds a new key; leave it out to change a key that exists."
    script = Path(sys.argv[0]).name
    return f"python {script} --help lists the groups, python {script} --cfg job every key."
