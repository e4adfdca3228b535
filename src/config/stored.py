"""Settings read back from a run folder, to resume or to reproduce a run. They are not trusted.

Nothing heavy is imported here: the command line is read before anything else.
"""

import logging
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)

CONF = Path(__file__).resolve().parents[2] / "conf"
MAX_BYTES = 1_000_000
MAX_DEPTH = 32
NOT_SETTINGS = ("hydra", "defaults")  # parts of a file that are meant for Hydra
# Where objects of a run write; null is the folder of the new run, or the user's cache.
OUTPUT_KEYS = ("dirpath", "default_root_dir", "save_dir", "root_dir", "log_dir", "cache_dir")
WRITERS = ("callbacks", "logger", "trainer")  # groups whose objects write files


def read_stored_config(path: Path, typed: "DictConfig | None" = None) -> dict[str, Any]:
    """The content of a run folder's `config.yaml` as plain data.

    Nothing in it is interpolated, its targets are those that this project's YAML files name, and
    its objects write into the folder of the new run.

    Args:
        path: the file.
        typed: a config composed from YAML files and the command line. Its values are trusted and
            take the place of values in the file that are not.

    Raises:
        UserError: the file cannot be read, or holds something that is not trusted and not typed.
    """
    content = _read(path)
    for key in NOT_SETTINGS:
        content.pop(key, None)
    known = set(_targets_in_conf())
    return _Reader(path, known, typed).trusted(content, "")


def resumed_config(cfg: "DictConfig", overrides: list[str]) -> "DictConfig":
    """The config that a resumed run was started with, changed by what is typed.

    Args:
        cfg: composed from YAML files and the command line.
        overrides: those of the command line, as Hydra lists them.
    """
    from omegaconf import OmegaConf

    stored = Path(cfg.resume).parent.parent / "config.yaml"
    keys = [_key(override) for override in overrides]
    if not stored.is_file() or "experiment" in keys:
        return cfg
    resumed = OmegaConf.create(read_stored_config(stored, cfg))
    for key, override in zip(keys, overrides, strict=True):
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            (OmegaConf.select(resumed, parent) if parent else resumed).pop(name, None)
        else:
            value = OmegaConf.select(cfg, key)
            OmegaConf.update(resumed, key, value, merge=False, force_add=True)
    return resumed


def _key(override: str) -> str:
    """`+data/augment@x=none` -> `data.augment`"""
    return override.lstrip("+~").partition("=")[0].split("@")[0].replace("/", ".")


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        _check_structure(text)
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise ValueError("it does not hold keys with values")
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read: {reason}.",
            "Give the folder of a run that train.py has written.",
        ) from None
    return content


def _check_structure(text: str) -> None:
    """Refuse what can grow beyond the size of the file: references and deep nesting."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds references")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")


def _targets_in_conf() -> Iterator[str]:
    """Every `_target_` in the YAML files of this project."""
    import yaml

    for file in CONF.rglob("*.yaml"):
        yield from _targets(yaml.safe_load(file.read_text(encoding="utf-8")))


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


class _Reader:
    """Replaces or refuses what is not trusted in a stored config."""

    def __init__(self, path: Path, known: set[str], typed: "DictConfig | None"):
        self.path, self.known, self.typed = path, known, typed

    def trusted(self, node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return {
                str(name): self.trusted(value, f"{key}.{name}" if key else str(name))
                for name, value in node.items()
            }
        if isinstance(node, list):
            return [self.trusted(value, f"{key}.{i}") for i, value in enumerate(node)]
        problem = self._problem(node, key)
        if problem is None:
            return node
        from omegaconf import OmegaConf

        own = OmegaConf.select(self.typed, key) if self.typed is not None else None
        interpolated = isinstance(node, str) and "${" in node
        if own is not None and (own == node or interpolated):
            return own
        name = key.rpartition(".")[2]
        if name in OUTPUT_KEYS:
            log.warning("%s=%s is not taken over; type it to write there.", key, node)
            return None
        remedy = f"type it: {key}=..." if self.typed is not None else "name it in a file under conf"
        raise UserError(
            f"{self.path}: {key} {problem}.",
            f"Check where that file comes from. To keep it, {remedy}.",
        )

    def _problem(self, value: Any, key: str) -> str | None:
        """Why a value is not trusted; None where it is."""
        name = key.rpartition(".")[2]
        if value is not None and not isinstance(value, str | bool | int | float):
            return f"is {value}, which is no plain value"
        if name == "_target_":
            return None if value in self.known else f"names {value} as an object to build"
        if not isinstance(value, str):
            return None
        if "${" in value:
            return f"holds the interpolation {value}"
        if name in OUTPUT_KEYS:
            return f"is the folder {value}"
        if key.partition(".")[0] in WRITERS and _leaves_folder(value):
            return f"is the path {value} outside of the run folder"
        return None


def _leaves_folder(value: str) -> bool:
    """Whether a relative or absolute path may lead out of the folder that it is joined to."""
    path = PurePath(value.removeprefix("file://"))
    return path.is_absolute() or ".." in path.parts or value.startswith(("~", "file:"))
