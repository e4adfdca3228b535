"""Lightning's checkpoint plugin, which writes files that can be read safely."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from .checkpoint import read_state
from .checkpoint_file import save

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin, through `save` and `read_state`.

    Hyper-parameters that are objects are left out: a file with them could not be read safely.
    """

    def __init__(self) -> None:
        super().__init__()
        self._named: set[str] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        given = checkpoint.get("hyper_parameters")
        if given:  # of `save_hyperparameters`
            plain = {name: value for name, value in given.items() if _is_plain(value)}
            self._warn_of_left_out(given.keys() - plain.keys())
            checkpoint = {**checkpoint, "hyper_parameters": plain}
        save(checkpoint, path)

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content on the CPU, as `read_state` gives it."""
        return read_state(Path(path))

    def _warn_of_left_out(self, names: set[str]) -> None:
        """Say it once, not for every checkpoint."""
        new = sorted(names - self._named)
        if new:
            log.warning("Hyper-parameters that are objects are not saved: %s.", ", ".join(new))
        self._named.update(new)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
