"""What stands between the shell and Hydra: paths taken verbatim, resumed runs, errors in two lines. Imports nothing heavy."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from src.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBATIM = ("ckpt", "path", "run", "resume")  # keys whose values Hydra's grammar must not read
WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


def run(main: Callable[[], object]) -> None:
    """Run an entry point decorated by `hydra.main` on this process's command line, and exit with the right code.

    Mistakes that a person can put right end with two lines and exit code 2. `HYDRA_FULL_ERROR=1` asks for the traceback.
    """
    # conf/hydra/launcher gives defaults to launchers that keep a schema of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/.*' is validated against", category=UserWarning)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    with two_line_errors():
        sys.argv[1:] = [quote(argument) for argument in _continue_run(sys.argv[1:])]
        try:
            main()
        except Exception as error:
            problem = None if WANTS_TRACEBACK else hydra_problem(error)
            if problem is None:
                raise
            fail(*problem)


@contextmanager
def two_line_errors() -> Iterator[None]:
    """End the program with two lines and exit code 2 on a `UserError`. Inside a Hydra job, so that Hydra adds nothing of its own."""
    try:
        yield
    except UserError as error:
        if WANTS_TRACEBACK:
            traceback.print_exc()
        fail(error.problem, error.remedy)


def fail(problem: str, remedy: str) -> NoReturn:
    """Two lines on the screen and exit code 2."""
    print(f"Error: {_one_line(problem)}\nHint:  {_one_line(remedy)}", file=sys.stderr)
    sys.exit(2)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def quote(argument: str) -> str:
    """`ckpt=a(1)=b,c.ckpt` -> `ckpt='a(1)=b,c.ckpt'`, so that Hydra reads the path as it stands."""
    key, equals, value = argument.partition("=")
    if key.lstrip("+") not in VERBATIM or not equals or value in ("", "null") or (value[0] == value[-1] == "'" and len(value) > 1):
        return argument
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A string as Hydra's grammar quotes it: a backslash only matters in front of a quote."""
    head = value.rstrip("\\")
    escaped = head.replace("\\'", "\\\\'").replace("'", "\\'") + value[len(head) :] * 2
    return f"'{escaped}'"


def hydra_problem(error: Exception) -> tuple[str, str] | None:
    """Two lines for an error of Hydra's or OmegaConf's about the command line; None for anything else."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    text = str(error)
    cause = f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ is not None and str(error.__cause__) else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return (lines[0] if lines else type(error).__name__) + cause, _remedy(lines)


def _remedy(lines: list[str]) -> str:
    for i, line in enumerate(lines):
        if line.startswith("Available options in"):
            return "Choose one of: " + ", ".join(lines[i + 1 :])
    return "python train.py --help lists the groups, python train.py --cfg job every key."


def _continue_run(arguments: list[str]) -> list[str]:
    """Where `resume=` is typed: the checkpoint's full path, and its run folder as this run's folder."""
    value = next((a.partition("=")[2] for a in arguments if a.startswith("resume=")), "null")
    if value in ("null", "") or value.startswith("'"):
        return arguments
    folder = next((a.partition("=")[2].strip("'\"") for a in arguments if a.startswith("hydra.run.dir=")), None)
    checkpoint = _find_checkpoint(value, folder)
    inside_run = checkpoint.parent.name == "checkpoints"
    rest = [a for a in arguments if not a.startswith("resume=")]
    if folder is None and inside_run:
        rest.append(f"hydra.run.dir={quoted(str(checkpoint.parent.parent))}")
    return [*rest, f"resume={checkpoint}"]


def _find_checkpoint(value: str, folder: str | None) -> Path:
    if value == "last":
        if folder is not None:
            found = [Path(folder) / "checkpoints" / "last.ckpt"]
        else:
            found = sorted(Path("runs").glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found or not found[-1].is_file():
            raise UserError(
                f"resume=last finds no checkpoint in {Path(folder or 'runs').absolute()}.",
                "Give the file with resume=PATH, or start without resume.",
            )
        return found[-1].absolute()
    path = Path(value).expanduser()
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.", "Give a last.ckpt or best.ckpt, or the folder of a run.")
    return path.absolute()


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
    continued = OmegaConf.load(saved)
    for key, override in zip(keys, overrides, strict=True):
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            (OmegaConf.select(continued, parent) if parent else continued).pop(name, None)
            continue
        OmegaConf.update(continued, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return continued
