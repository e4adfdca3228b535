"""Configs as plain values."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..runs.checkpoint import to_plain
from ..runs.environment import redact_secrets


def resolved(node: Any) -> Any:
    """A part of a config as plain values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain values for records.

    Values from the environment stay as they are written, `${oc.env:NAME}`, and values under keys
    that are named like secrets are left out.
    """
    written = escape_environment(OmegaConf.to_container(cfg, resolve=False))
    resolved = OmegaConf.to_container(OmegaConf.create(written), resolve=True)
    return redact_secrets(to_plain(resolved))


def escape_environment(value: Any) -> Any:
    """Keep interpolations of environment variables from being resolved."""
    if isinstance(value, dict):
        return {key: escape_environment(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape_environment(item) for item in value]
    if isinstance(value, str) and "oc.env:" in value:
        return value.replace("${", "\\${")
    return value
