"""Reading a folder in the layout of the Hugging Face Hub, which may come from a stranger.

Weights: https://huggingface.co/docs/safetensors; a file holds tensors only, and runs nothing.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from .reading import MAX_JSON, is_shallow, read_bytes, read_text

SUFFIX = ".safetensors"
WEIGHTS = f"model{SUFFIX}"
CONFIG = "config.json"
MAX_BYTES = 2**34  # of the weights


def read(path: Path) -> dict[str, Any]:
    """The weights and the description of a network, as a checkpoint has them.

    Args:
        path: the file of the weights, beside config.json.

    Raises:
        UserError: a file is missing or damaged, or was not written by `export.py format=hub`.
    """
    check_safetensors()
    from safetensors.torch import load

    try:
        config = json.loads(read_text(path.with_name(CONFIG), MAX_JSON))
        if not isinstance(config, dict) or not is_shallow(config):
            raise ValueError(f"{CONFIG} is not an object, or is nested too deeply")
        if not isinstance(config.get("description"), dict):
            raise ValueError(f"{CONFIG} has no description of its network")
        weights = load(read_bytes(path, MAX_BYTES))
    except MemoryError:
        raise
    except Exception as error:  # there is no end of ways in which a file can be wrong
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"{path.parent} is no folder of export.py format=hub: {reason[0][:200]}.",
            "Export the network again, and check where this folder comes from.",
        ) from error
    prefix = f"model.{'network.' if 'architecture' in config else ''}"  # timm has its own names
    state_dict = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    kept = {key: config[key] for key in ("description", "calibration") if key in config}
    return {"state_dict": state_dict, **kept}


def check_safetensors() -> None:
    """Raise a `UserError` unless safetensors is installed."""
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            "safetensors is not installed.", 'Install the extra: pip install -e ".[export]"'
        )
