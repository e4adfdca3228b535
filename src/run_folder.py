"""The folder that a run leaves behind: what it was asked, what it ran on, what came out. Plain files, written whole or not at all."""

import csv
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from src.errors import UserError
from src.text_table import aligned

if TYPE_CHECKING:
    import torch  # which takes longer to import than all that sweeps and searches do with these files

SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
log = logging.getLogger(__name__)
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "scikit-learn", "numpy", "pillow")


class RunFolder:
    """Writes `config.yaml`, `run.json`, `results.json` and `per_class.csv` into one folder.

    Args:
        path: the folder; made if need be.
        active: whether this process writes; with several processes only the first one does.

    Raises:
        UserError: another process is writing into it.
    """

    def __init__(self, path: str | os.PathLike, active: bool = True):
        self.path = Path(path).absolute()
        self.active = active
        self._run: dict[str, Any] = {}
        self._lock: IO | None = None
        if active:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._keep_others_out()

    def _keep_others_out(self) -> IO | None:
        """The open file that carries the lock, until the run or its process ends. Loader processes do not inherit locks of this kind.

        Windows has none of the kind, nor have some network file systems.
        """
        try:
            import fcntl

            file = open(self.path / ".run.lock", "w")  # noqa: SIM115
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if error.filename is not None:  # the folder cannot be written: whoever writes first tells
                return None
            raise UserError(f"Another process is writing into {self.path}.", "Wait for it, or end it, and start again.") from None
        except (ImportError, OSError):
            return None
        return file

    def start(self, config: Mapping[str, Any], command: Sequence[str]) -> None:
        """Note what is about to run. An earlier part of a resumed run stays on record under `earlier`."""
        if not self.active:
            return
        before = read_json(self.path / "run.json")
        earlier = [*before.pop("earlier", []), before] if before else []
        self._run = {
            "command": list(command),
            "status": "running",
            "start": now(),
            "end": None,
            "versions": versions(),
            "hardware": hardware(),
            "git": git_state(),
            "earlier": earlier,
        }
        (self.path / "results.json").unlink(missing_ok=True)  # of the earlier part: this run has no results yet
        write_text(self.path / "config.yaml", yaml.safe_dump(without_secrets(dict(config)), sort_keys=False, allow_unicode=True))
        self.note()

    def note(self, **facts: Any) -> None:
        """Add facts to `run.json`."""
        self._run.update(facts)
        self._write_json("run.json", self._run)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`, then mark the run as what `results["status"]` says."""
        self._write_json("results.json", results)
        self.note(status=results["status"], end=now())
        self.release()

    def release(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            (self.path / ".run.lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def fail(self, error: str, status: str = "failed", **facts: Any) -> None:
        """Record that the run did not come through, and why; where even that cannot be written, say so."""
        try:
            self.finish({"status": status, "error": error, **facts})
        except OSError as reason:
            log.error("%s could not be written: %s", self.path / "results.json", reason.strerror)

    def write_per_class(self, split: str, classes: Sequence[str], confusion: "torch.Tensor") -> None:
        """`per_class.csv` from (true class, predicted class) counts."""
        header = ["split", "class", "support", "precision", "recall", "f1"]
        rows = ([split, *row.values()] for row in per_class(classes, confusion))
        self.write_csv("per_class.csv", header, rows)

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table, row by row, to a file beside its place that then takes it."""
        if not self.active:
            return
        part = self.path / f"{name}.part"
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        part.replace(self.path / name)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        if self.active:
            write_text(self.path / name, json.dumps(without_secrets(content), indent=2, ensure_ascii=False) + "\n")


def per_class(classes: Sequence[str], confusion: "torch.Tensor") -> list[dict[str, Any]]:
    """Support, precision, recall (the accuracy of the class) and F1 of each class, from (true, predicted) counts.

    A ratio without a denominator (a class that never occurs, or is never predicted) counts as 0, as in scikit-learn.
    """
    hits = confusion.diagonal().tolist()
    rows = []
    for i, name in enumerate(classes):
        support, predicted = int(confusion[i].sum()), int(confusion[:, i].sum())
        precision = hits[i] / predicted if predicted else 0.0
        recall = hits[i] / support if support else 0.0
        f1 = 2 * hits[i] / (support + predicted) if support + predicted else 0.0
        rows.append({"class": name, "support": support, "precision": precision, "recall": recall, "f1": f1})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a per-class table as text for the screen."""
    cells = [[row["class"], f"{row['support']:,}", *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))] for row in rows]
    return aligned([["class", "images", "precision", "recall", "f1"], *cells], numbers=True)


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it, so that nobody ever reads half of it."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def without_secrets(value: Any) -> Any:
    """Plain values with `${oc.env:NAME}` wherever the value of a secret environment variable stands.

    Secret is what has a name like KEY, TOKEN, SECRET, PASSWORD or CREDENTIAL, and an address with a password in it.
    """
    secrets = {
        content: name
        for name, content in os.environ.items()
        if len(content) >= 8 and (SECRET.search(name) or re.search(r"://[^/@\s]+:[^/@\s]+@", content))
    }

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for content, name in secrets.items():
                value = value.replace(content, f"${{oc.env:{name}}}")
            return value
        if isinstance(value, Mapping):
            return {clean(key): clean(item) for key, item in value.items()}
        return [clean(item) for item in value] if isinstance(value, list | tuple) else value

    return clean(value)


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, or {} where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return {}


def now() -> str:
    """Local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results hang on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Processor, threads and GPUs; no host name."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, of the project's own repository; None outside of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> list[str]:
    """The command as it was typed, from the script's name on."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
