"""Settings read back from a run folder, to resume or to reproduce a run. They are not trusted.

Nothing heavy is imported here: the command line is read before anything else.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from ..runs.environment import HIDDEN
from ..runs.reading import UNREADABLE, read_yaml

log = logging.getLogger(__name__)

CONF = Path(__file__).resolve().parents[2] / "conf"
# Where objects of a run write; null is the folder of the new run, or the user's cache.
OUTPUT_KEYS = ("dirpath", "default_root_dir", "save_dir", "root_dir", "log_dir", "cache_dir")
DATA_FOLDER = "data"  # as in conf/data/base.yaml
GROUPS = ("data", "task", "trainer")
NEEDED = ("seed", "test", *GROUPS)
FOREIGN = ("defaults", "hydra")  # by which Hydra would compose or build something
WRITERS = ("callbacks", "logger", "trainer")  # groups whose objects write files


def read_stored_config(
    path: Path, typed: DictConfig | None = None, replaced: Collection[str] = ()
) -> dict[str, Any]:
    """The content of a run folder's `config.yaml` as plain data.

    Nothing in it is interpolated, its targets are those that this project's YAML files name, and
    its objects write into the folder of the new run.

    Args:
        path: the file.
        typed: a config composed from YAML files and the command line. Its values are trusted and
            take the place of values in the file that are not.
        replaced: keys whose values `typed` gives, whatever the file says.

    Raises:
        UserError: the file cannot be read, or holds something that is not trusted and not typed.
    """
    try:
        content = _read(path)
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read: {' '.join(str(error).split())}.",
            "Give the folder of a run that train.py has written.",
        ) from None
    return _replace_values(content, partial(_trusted, path, _known_targets(), typed, replaced))


def resumed_config(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The config that a resumed run was started with, changed by what is typed.

    Args:
        cfg: composed from YAML files and the command line.
        overrides: those of the command line, as Hydra lists them.
    """
    stored = Path(cfg.resume).parent.parent / "config.yaml"
    # `+data/augment@x=none` -> `data.augment`
    keys = [typed.lstrip("+~").partition("=")[0].split("@")[0] for typed in overrides]
    if not stored.is_file() or "experiment" in keys:
        return cfg
    resumed = OmegaConf.create(read_stored_config(stored, cfg, keys))
    resumed.resume_changes = cfg.resume_changes  # each time anew
    for key, override in zip(keys, overrides, strict=True):
        key = key.replace("/", ".")
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            (OmegaConf.select(resumed, parent) if parent else resumed).pop(name, None)
        else:
            value = OmegaConf.select(cfg, key)
            OmegaConf.update(resumed, key, value, merge=False, force_add=True)
    return resumed


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError("it does not hold keys with values")
    foreign = [key for key in FOREIGN if key in content]
    if foreign:
        raise ValueError(f"it holds {foreign[0]}, which a run does not store")
    missing = [key for key in NEEDED if key not in content]
    missing += [key for key in GROUPS if not isinstance(content.get(key, {}), dict)]
    if missing:
        raise ValueError(f"it does not hold the settings of a run: {missing[0]}")
    return content


@cache
def _known_targets() -> set[str]:
    """What this project's YAML files name as objects to build."""
    known: set[str] = set()
    for file in CONF.rglob("*.yaml"):
        with suppress(yaml.YAMLError, UnicodeDecodeError):  # a file that this run does not use
            known.update(_targets(yaml.safe_load(file.read_text(encoding="utf-8"))))
    return known


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in plain values."""
    if isinstance(node, dict):
        yield str(node.get("_target_"))
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _replace_values(node: Any, function: Callable[[str, Any], Any], key: str = "") -> Any:
    """The same nested values with each single one replaced by `function(dotted key, value)`."""
    above = f"{key}." if key else ""
    if isinstance(node, dict):
        items = {str(name): value for name, value in node.items()}
        return {name: _replace_values(items[name], function, f"{above}{name}") for name in items}
    if isinstance(node, list):
        return [_replace_values(value, function, f"{above}{i}") for i, value in enumerate(node)]
    return function(key, node)


def _trusted(
    path: Path,
    known: set[str],
    typed: DictConfig | None,
    replaced: Collection[str],
    key: str,
    value: Any,
) -> Any:
    """A value of the file, or what takes its place."""
    problem = _find_problem(known, key, value)
    if problem is None:
        return value
    own = _select(OmegaConf.to_container(typed), key) if typed is not None else None
    if own is not None and (own == value or key in replaced or _is_secret(value)):
        return own  # an interpolation stays one: what it stands for may be a secret
    if key.startswith("data.") and _leaves(value):
        mine = own if isinstance(own, str) else DATA_FOLDER
        if os.path.abspath(mine) != value:
            log.warning("%s=%s does not exist here: %s takes its place.", key, value, mine)
        return mine
    if key.rpartition(".")[2] in OUTPUT_KEYS:
        log.warning("%s=%s is not taken over; type it to write there.", key, value)
        return None
    remedy = f"type it: {key}=..." if typed is not None else "name it in a file under conf"
    raise UserError(
        f"{path}: {key} {problem}.",
        f"Check where that file comes from. To keep it, {remedy}.",
    )


def _select(node: Any, key: str) -> Any:
    """The value of a dotted key in plain nested values; None where there is none."""
    for name in key.split("."):
        if isinstance(node, list) and name.isdigit():
            node = dict(enumerate(node)).get(int(name))
        else:
            node = node.get(name) if isinstance(node, dict) else None
    return node


def _find_problem(known: set[str], key: str, value: Any) -> str | None:
    """Why a value is not trusted; None where it is."""
    name = key.rpartition(".")[2]
    if name == "_target_":
        return None if value in known else f"names {value} as an object to build"
    if not isinstance(value, str):
        return _problem_of_number(value)
    if _is_secret(value):
        return f"is {value}" if value == HIDDEN else f"holds the interpolation {value}"
    group = key.partition(".")[0]
    if name in OUTPUT_KEYS or (group in WRITERS and (_leaves(value) or "://" in value)):
        return f"is {value}, which is outside of the run folder"
    if group == "data" and _leaves(value) and not _exists(value):
        return f"is the path {value}, which does not exist"  # data would be downloaded there
    return None


def _problem_of_number(value: Any) -> str | None:
    if value is not None and not isinstance(value, bool | int | float):
        return f"is {value}, which is no plain value"
    if isinstance(value, int) and value.bit_length() > 64:
        return "is a number of more than 64 bits"
    return None


def _is_secret(value: Any) -> bool:
    """Whether a value was left out when the file was written."""
    return isinstance(value, str) and ("${" in value or value == HIDDEN)


def _leaves(value: str) -> bool:
    """Whether a path leads out of the folder that it is seen from."""
    path = PurePath(value.removeprefix("file://"))
    return path.is_absolute() or ".." in path.parts or value.startswith(("~", "file:"))


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
