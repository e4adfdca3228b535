"""Errors of Hydra and OmegaConf about the command line as a problem and a remedy.

They are made from the data that the exceptions carry and from the settings that were typed.
"""

import os
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ..errors import UserError
from ..runs.files import DISK_FULL
from ..runs.run_folder import flatten
from .tracebacks import own_frames, raised_in

CONF = Path(__file__).resolve().parents[2] / "conf"


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The names most like `name`, best first; empty where none is like it."""
    return get_close_matches(name, list(known), n=3, cutoff=cutoff)


def did_you_mean(names: Iterable[str]) -> str:
    """A question that proposes these names."""
    return f"Did you mean {' or '.join(names)}?"


def to_user_error(error: Exception) -> UserError | None:
    """What an error of Hydra, OmegaConf or the disk says about the command line; else None."""
    if isinstance(error, MissingConfigException):
        return _missing_file(error)
    if isinstance(error, OverrideParseException):
        return UserError(
            f"{error.override} is not of the form KEY=VALUE.",
            "Write KEY=VALUE without blanks around =, and quote what the shell would change: "
            "'optimizer.betas=[0.9,0.99]'.",
        )
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return _yaml_error(error, error.problem_mark)
    if isinstance(error, OSError) and (error.errno in DISK_FULL or not any(own_frames(error))):
        return _disk_error(error)
    return None if any(own_frames(error)) else _error_of_hydra(error)


def _disk_error(error: OSError) -> UserError | None:
    """A file that cannot be written or read; None where no file is named."""
    if error.errno in DISK_FULL:
        return UserError(  # a write that fails does not name its file
            f"The disk is full: {error.filename or 'the run folder'} cannot be written.",
            "Free some space, or choose another folder: hydra.run.dir=FOLDER; of a sweep, "
            "hydra.sweep.dir=FOLDER.",
        )
    if error.filename is None:
        return None
    return UserError(
        f"{error.filename} cannot be written or read: {error.strerror}.",
        "Choose another folder with hydra.run.dir=FOLDER, or make room.",
    )


def _error_of_hydra(error: Exception) -> UserError | None:
    """An error that Hydra or OmegaConf has raised about a key or a value; else None."""
    unknown_key = ConfigKeyError | ConfigAttributeError
    cause = error.__cause__
    if isinstance(cause, unknown_key) and cause.key is not None:
        return _unknown_key(cause)
    if isinstance(error, TypeError | ValueError) and raised_in(error, "hydra", "omegaconf"):
        return _group_without_name() or _general(error)
    about_values = isinstance(error, OmegaConfBaseException) and not isinstance(error, unknown_key)
    return _general(error) if about_values or isinstance(error, HydraException) else None


def _yaml_error(error: yaml.MarkedYAMLError, mark: yaml.Mark) -> UserError:
    """File and line of a YAML file that cannot be read."""
    if error.context_mark is not None and "could not find" in str(error.problem):
        mark = error.context_mark  # the line without a colon, not the one after it
    return UserError(
        f"{os.path.relpath(mark.name)}:{mark.line + 1}: {error.problem or error.context}.",
        "YAML needs KEY: VALUE, blanks instead of tabs, and closed brackets and quotes.",
    )


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
    options = error.options or sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if not group or not options:
        return _general(error)
    if (CONF / group / f"{name}.yml").is_file():
        return UserError(f"conf/{group}/{name}.yml is not read.", f"Rename it to {name}.yaml.")
    near = [f"{group}={other}" for other in closest(name, options)]
    proposal = f"{did_you_mean(near)} " if near else ""
    choice = f"Choose one of: {', '.join(options)}."
    return UserError(f"There is no {group}={name}.", f"{proposal}{choice}")


def _unknown_key(cause: Any) -> UserError:
    """A key that the config does not have, with the nearest key that it has."""
    missing = str(cause.full_key or cause.key)
    keys = [argument.partition("=")[0].lstrip("+~") for argument in sys.argv[1:]]
    related = (key for key in keys if f"{key}.".startswith(f"{missing}."))
    typed = next(related, "") or next((k for k in keys if missing.startswith(f"{k}.")), missing)
    if missing.startswith(f"{typed}."):  # the key exists, but not what the value adds to it
        return UserError(
            f"{typed} has no {missing.removeprefix(f'{typed}.')} yet.",
            f"Add it with a plus sign: '+{typed}=...'.",
        )
    if typed.startswith("callbacks.") and typed.endswith(".enabled"):
        return UserError(f"There is no setting {typed} yet.", f"Add it: +{typed}=false.")
    root = OmegaConf.to_container(cause.parent_node._get_root())
    root.pop("hydra", None)
    settings = list(flatten(root))
    groups = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]
    near = closest(typed, [*groups, *root, *settings], cutoff=0.8)[:1]
    near = near or _same_name(typed, settings) or _same_name(typed.split("_")[-1], settings)
    if near:
        return UserError(f"There is no setting {typed}.", did_you_mean(near))
    above = missing.removesuffix(str(cause.key)).rstrip(".") or "The config"
    names = ", ".join(str(key) for key in cause.parent_node if not str(key).startswith("_"))
    has = f"{above} has {names}" if names else f"{above} has no other keys yet"
    return UserError(f"There is no setting {typed}.", f"{has}; +{typed}=... adds one.")


def _same_name(typed: str, settings: Iterable[str]) -> list[str]:
    """Settings with this name inside a group, such as lr or epochs, the most general ones."""
    found = [key for key in settings if "." in key and key.endswith((f".{typed}", f"_{typed}"))]
    found.sort(key=lambda key: (key.count("."), not key.endswith(f".{typed}")))
    exact = [key for key in found[:1] if key.endswith(f".{typed}")]
    return exact or [key for key in found if key.count(".") == found[0].count(".")][:3]


def _several_values(argument: str) -> UserError:
    """Values with commas, without `-m`."""
    script = Path(sys.argv[0]).name
    return UserError(
        f"{argument} has several values.",
        f"For one run with each of them: python {script} -m {argument}. A single value with "
        "commas is a list, in brackets.",
    )


def _general(error: Exception) -> UserError:
    """The first lines of an error and of its cause."""
    lines = [
        str(shown).strip().partition("\n")[0] or type(shown).__name__
        for shown in (error, error.__cause__)
        if shown is not None
    ]
    several = re.match(r"Multiple values for ([\w/]+)\.", lines[0])
    if several:
        group = several[1]
        remedy = f"Type all of them: '{group}=[NAME,NAME]', such as 'logger=[tensorboard,csv]'."
        return UserError(f"{group} has a value already, and + does not add to it.", remedy)
    ambiguous = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if ambiguous:
        return _several_values(ambiguous[1])
    script = Path(sys.argv[0]).name
    remedy = f"python {script} --help lists the groups, python {script} --cfg job every key."
    if any(argument.startswith("+") for argument in sys.argv[1:]):
        remedy = "A plus sign adds a new key; leave it out to change a key that exists."
    return UserError(" ".join(dict.fromkeys(lines)), remedy)
