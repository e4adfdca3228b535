"""The folder of a run: its configuration, its environment, its results and its state."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ..errors import Interrupted, UserError
from .environment import git_state, hardware, redact_secrets, versions
from .files import Lock, read_json, write_csv, write_json, write_text

log = logging.getLogger(__name__)
STATES = ("completed", "failed", "interrupted", "pruned", "trained", "running")


class RunFolder:
    """Writes `config.yaml`, `run.json`, `results.json` and tables into one folder.

    Args:
        path: the folder; `start` makes it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        self.checkpoints = self.path / "checkpoints"
        self._record: dict[str, Any] = {}
        self._lock = Lock(self.path / ".run.lock")

    def start(self, config: Mapping[str, Any], command: Sequence[str]) -> None:
        """Lock the folder and record what is about to run. Earlier results stay until `finish`.

        Args:
            config: the settings of the run, in plain types.
            command: what was typed.

        Raises:
            UserError: another process is writing into the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        before = read_json(self.path / "run.json")
        earlier = before.pop("earlier", [])
        earlier = [*(earlier if isinstance(earlier, list) else []), before] if before else []
        self._record = {
            "command": list(command),
            "status": "running",
            "start": now(),
            "end": None,
            "versions": versions(),
            "hardware": hardware(),
            "git": git_state(),
            "earlier": earlier,
        }
        text = yaml.safe_dump(redact_secrets(config), sort_keys=False, allow_unicode=True)
        write_text(self.path / "config.yaml", text)
        self.note()

    def lock(self) -> None:
        """Keep other processes out.

        Raises:
            UserError: another process is writing into the folder.
        """
        if not self._lock.acquire():
            raise UserError(
                f"Another process is writing into {self.path}.",
                "Wait until it has ended, or end it, and start again.",
            )

    def note(self, **facts: Any) -> None:
        """Add facts to `run.json`."""
        self._record.update(facts)
        write_json(self.path / "run.json", redact_secrets(self._record))

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`."""
        write_json(self.path / "results.json", results)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`, set the status in `run.json` and release the lock."""
        self.write_results(results)
        self._set_status({"status": results["status"]})

    def _set_status(self, facts: Mapping[str, str]) -> None:
        if not self._record:
            self._record = read_json(self.path / "run.json")
        self.note(**facts, end=now())
        self.release()

    def record_failure(self, error: BaseException, **facts: Any) -> None:
        """Record that the run failed or was interrupted; log it where that cannot be written.

        Results of an earlier part of the run stay.
        """
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        text = str(error) if isinstance(error, Interrupted) else f"{type(error).__name__}: {error}"
        if isinstance(error, UserError):
            text = error.problem
        ended = {"status": "interrupted" if interrupted else "failed", "error": text}
        try:
            if not self.has_results():
                known = read_json(self.path / "results.json")  # metrics of a finished training
                self.write_results(known | ended | facts)
            self._set_status(ended)
        except OSError as reason:
            log.error("%s cannot be written: %s", self.path / "results.json", reason.strerror)

    def release(self) -> None:
        """Let other processes write into the folder."""
        self._lock.release()

    def has_results(self) -> bool:
        """Whether a run was completed in this folder."""
        return read_json(self.path / "results.json").get("status") == "completed"

    def is_used_elsewhere(self) -> bool:
        """Whether another process is writing into the folder."""
        return self._lock.path not in Lock.held and Lock.is_held(self._lock.path)

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write a table into the folder."""
        write_csv(self.path / name, header, rows)


def status(folder: Path) -> str:
    """The state of a run by its own files.

    Returns:
        completed, failed, interrupted, pruned, trained (not yet tested), running (or killed),
        or waiting.
    """
    results = _known(read_json(folder / "results.json").get("status"))
    recorded = _known(read_json(folder / "run.json").get("status"))
    if recorded is None or (recorded == "completed" and results != "completed"):
        return results or "waiting"  # a run without its results is not completed
    return recorded  # results may be those of an earlier part of the run


def _known(value: Any) -> str | None:
    return value if value in STATES else None


def set_status(folder: Path, new_status: str, error: str) -> None:
    """Record how a run ended that could not record it itself."""
    run = read_json(folder / "run.json")
    if run:
        ended = {"status": new_status, "error": error, "end": now()}
        write_json(folder / "run.json", run | ended)
    if not RunFolder(folder).has_results():
        write_json(folder / "results.json", {"status": new_status, "error": error})


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run is resumed from; None where there is none."""
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def now() -> str:
    """Local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
