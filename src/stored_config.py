"""Settings read back from a run folder, for going on with a run or repeating it. They are data, and not to be trusted.

Imports nothing heavy: the command line is read before anything else is.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def stored_config(path: Path, typed: "DictConfig | None" = None) -> dict[str, Any]:
    """The content of a run folder's `config.yaml`, which is data: it interpolates nothing and names no target of its own choice.

    Args:
        path: the file; a part of it that is meant for Hydra is left out.
        typed: a config composed from this project's YAML files and the command line, which stands in for what is not trusted.

    Raises:
        UserError: the file is damaged, holds an interpolation, or has a target built that no YAML file of this project names.
    """
    import yaml
    from omegaconf import OmegaConf

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no mapping")
        content.pop("hydra", None)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Give the folder of a run that train.py has written.") from None
    conf = Path(__file__).parent.parent / "conf"
    known = {
        target.strip("'\"")
        for file in conf.rglob("*.yaml")
        for target in re.findall(r"^\s*(?:- )?_target_:\s*([^\s#]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }

    def trusted(node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return {name: trusted(value, f"{key}.{name}" if key else str(name)) for name, value in node.items()}
        if isinstance(node, list):
            return [trusted(value, f"{key}.{i}") for i, value in enumerate(node)]
        foreign = key.endswith("_target_") and node not in known
        if not foreign and not (isinstance(node, str) and "${" in node):
            return node
        own = OmegaConf.select(typed, key) if typed is not None else None
        if own is None or (foreign and own != node):
            what = f"has {node} built" if foreign else f"holds the interpolation {node}"
            typing = f" To have it so, type it: {key}=..." if typed is not None else " To have it so, name it in a file under conf."
            raise UserError(f"{path}: {key} {what}.", f"Look where that file comes from.{typing}")
        return own

    return trusted(content, "")


def continued_config(cfg: "DictConfig", overrides: list[str]) -> "DictConfig":
    """The config that a resumed run was started with, changed only where the command line says so.

    Args:
        cfg: as composed from the YAML files and the command line.
        overrides: the command line's, as Hydra lists them.
    """
    from omegaconf import OmegaConf

    saved = Path(cfg.resume).parent.parent / "config.yaml"
    keys = [override.lstrip("+~").partition("=")[0].split("@")[0].replace("/", ".") for override in overrides]
    if not saved.is_file() or "experiment" in keys:
        return cfg
    continued = OmegaConf.create(stored_config(saved, cfg))
    for key, override in zip(keys, overrides, strict=True):
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            (OmegaConf.select(continued, parent) if parent else continued).pop(name, None)
            continue
        OmegaConf.update(continued, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return continued
