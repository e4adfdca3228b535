"""Run folders and checkpoints, the writer and the lock of the project."""

from .run_folder import RunFolder

__all__ = ["RunFolder"]
