"""What the folder of a job, of a sweep or a search, says of itself, and who may work in it."""

import json
from pathlib import Path
from typing import IO

from src.errors import UserError
from src.run_folder import now, read_json, write_text

FROZEN = Path(".hydra", "job.yaml")  # in a job's folder: its config as it was when the sweep was started
OVERRIDES = Path(".hydra", "overrides.yaml")  # what was typed for it; Hydra's own name and format
HELD: dict[Path, IO] = {}  # folders of sweeps, by the open file that locks them


def status(folder: Path) -> str:
    """completed, failed, interrupted, running (or cut off without a word), or waiting: what a job's own files say."""
    results = read_json(folder / "results.json")
    return results["status"] if results else read_json(folder / "run.json").get("status", "waiting")


def record(folder: Path, status: str, error: str) -> None:
    """Say for a job how it ended."""
    run = read_json(folder / "run.json")
    if run:
        write_text(folder / "run.json", json.dumps(run | {"status": status, "end": now()}, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "results.json", json.dumps({"status": status, "error": error}, indent=2) + "\n")


def hold(folder: Path) -> int | None:
    """Keep a sweep's folder to this process and those that inherit the file; Windows has no such locks.

    Returns:
        The open file that carries the lock.

    Raises:
        UserError: the sweep, or a job that it left behind, is still running.
    """
    if folder not in HELD:
        try:
            import fcntl
        except ImportError:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        HELD[folder] = open(folder / ".lock", "w")  # noqa: SIM115 - until this process ends
        try:
            fcntl.flock(HELD[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Jobs of {folder} are still running.", "Wait for them, or end them, and start again.") from None
    return HELD[folder].fileno()


def last_checkpoint(folder: Path) -> Path | None:
    """Where a job that was cut off goes on."""
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None
