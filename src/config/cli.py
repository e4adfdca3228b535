"""What stands between the shell and Hydra: paths taken as they are, and how errors end.

Nothing heavy is imported here, so that `--help` and typing errors answer at once.
"""

import atexit
import bdb
import io
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from .console import discard_output, show
from .tracebacks import format_error

log = logging.getLogger(__name__)

# Keys whose values Hydra's grammar must not read.
VERBATIM = ("ckpt", "path", "run", "runs", "resume", "reproduce", "output", "sort_to")
# Hydra's options that are followed by a value, which may hold =.
OPTIONS = ["-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"]
OPTIONS += ["--experimental-rerun"]
MODES = ("find_lr", "reproduce")  # of train.py, with a run folder of their own name
NEW_RUN = "runs/${now:%Y-%m-%d_%H-%M-%S-%f}"
# `run` sets HYDRA_FULL_ERROR for itself; this variable passes on what was typed.
FULL_ERROR = "FULL_ERROR_WANTED"


def run(main: Callable[[], object]) -> None:
    """Run an entry point decorated by `hydra.main` on the command line of this process.

    Mistakes in settings end with two lines and exit code 2, mistakes in code with a traceback and
    exit code 1. `HYDRA_FULL_ERROR=1` asks for the whole traceback.
    """
    # conf/hydra/launcher gives defaults to launchers that have a schema of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/", category=UserWarning)
    os.environ.setdefault(FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    for stream in (sys.stdout, sys.stderr):  # of any encoding, and with names that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with two_line_errors():
        sys.argv[1:] = prepare_arguments(sys.argv[1:])
        try:
            main()
        finally:
            sys.stdout.flush()


def prepare_arguments(arguments: list[str]) -> list[str]:
    """The command line as Hydra takes it.

    Raises:
        UserError: an option that Hydra does not have, or `resume=` names no checkpoint.
    """
    arguments = options_first(_choose_folder(_find_resumed_run(arguments)))
    for argument in get_args_parser().parse_known_args(arguments)[1]:
        raise UserError(
            f"There is no option {argument}.",
            f"Settings are KEY=VALUE; python {Path(sys.argv[0]).name} --help lists the options.",
        )
    return [quote(argument) for argument in arguments]


@contextmanager
def two_line_errors() -> Iterator[None]:
    """End the program on an error, see `run`; inside a job too, before Hydra sees the error."""
    try:
        yield
    except BrokenPipeError:
        discard_output()
        sys.exit(128 + signal.SIGPIPE)
    except bdb.BdbQuit:  # q in a debugger
        sys.exit(1)
    except KeyboardInterrupt:
        if _wants_full_error():
            raise
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        _end_with(error)


def _end_with(error: Exception) -> NoReturn:
    """Report an error on the screen and exit with its code."""
    from .hydra_errors import to_user_error

    user_error = error if isinstance(error, UserError) else to_user_error(error)
    if _wants_full_error():
        traceback.print_exception(error)
    if user_error is not None:
        problem, remedy = (" ".join(s.split()) for s in (user_error.problem, user_error.remedy))
        show(f"Error: {problem}\nHint:  {remedy}", error=True)
        sys.exit(2)
    if not _wants_full_error():
        show(format_error(error, _log_whole_traceback(error)), error=True)
    sys.exit(1)


def require(cfg: DictConfig, *keys: str) -> None:
    """Raise a `UserError` for the first of `keys` that was not typed: `???` in the YAML."""
    for key in keys:
        if OmegaConf.is_missing(cfg, key):
            script = Path(sys.argv[0]).name
            raise UserError(
                f"{key}= is missing.",
                f"Add {key}=... to the command; python {script} --cfg job shows every key.",
            )


def quote(argument: str) -> str:
    """`ckpt=a(1)=b,c.ckpt` -> `ckpt='a(1)=b,c.ckpt'`, so that Hydra reads the path as it is."""
    key, _, value = argument.partition("=")
    is_quoted = len(value) > 1 and value[0] == value[-1] == "'"
    if key.lstrip("+") not in VERBATIM or value in ("", "null") or is_quoted:
        return argument
    return f"{key}={quoted(value)}"


def quoted(value: str) -> str:
    """A string in quotes of Hydra's grammar: a backslash counts only in front of a quote."""
    head = value.rstrip("\\")
    escaped = head.replace("\\'", "\\\\'").replace("'", "\\'") + value[len(head) :] * 2
    return f"'{escaped}'"


def options_first(arguments: list[str]) -> list[str]:
    """Options, then settings: Hydra's parser refuses settings on both sides of an option."""

    def is_setting(pair: tuple[str, str]) -> bool:
        previous, argument = pair
        assigns = "=" in argument or argument.startswith("~")
        return assigns and not argument.startswith("-") and previous not in OPTIONS

    pairs = zip(["", *arguments], arguments, strict=False)
    return [argument for _, argument in sorted(pairs, key=is_setting)]


def _value(arguments: list[str], key: str) -> str | None:
    """The value of a setting as it was typed; None where it was not, or is null."""
    typed = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return typed[-1] if typed and typed[-1] not in ("", "null", "false") else None


def _choose_folder(arguments: list[str]) -> list[str]:
    """The run folder of a check (a temporary one) and of the other modes of train.py."""
    if _value(arguments, "check"):
        folder = tempfile.mkdtemp(prefix="check-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        keys = ("hydra.run.dir", "hydra.sweep.dir")
        kept = [argument for argument in arguments if argument.partition("=")[0] not in keys]
        return [*(f"{key}={quoted(folder)}" for key in keys), *kept]
    for mode in MODES:
        if _value(arguments, mode) and not _value(arguments, "hydra.run.dir"):
            return [f"hydra.run.dir={NEW_RUN}_{mode}", *arguments]
    return arguments


def _find_resumed_run(arguments: list[str]) -> list[str]:
    """With `resume=`: the checkpoint's full path, and its run folder as the folder of this run."""
    value = _value(arguments, "resume")
    if value is None or value.startswith("'"):
        return arguments
    folder = _value(arguments, "hydra.run.dir")
    checkpoint = _find_checkpoint(value, folder.strip("'\"") if folder else None)
    added = [f"resume={checkpoint}"]
    if folder is None and checkpoint.parent.name == "checkpoints":
        added.append(f"hydra.run.dir={quoted(str(checkpoint.parent.parent))}")
    return [*added, *(argument for argument in arguments if not argument.startswith("resume="))]


def _find_checkpoint(value: str, run_dir: str | None) -> Path:
    """The checkpoint that a file, a run folder or the word "last" stands for.

    "last" is the checkpoint of `run_dir`, or of the run that wrote one most recently.
    """
    path = Path(value).expanduser()
    if value == "last":
        written = Path("runs").glob("*/checkpoints/last.ckpt")
        newest = max(written, key=lambda file: file.stat().st_mtime, default=Path("runs/last.ckpt"))
        path = Path(run_dir) / "checkpoints" / "last.ckpt" if run_dir else newest
    elif path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        best = path.with_name("best.ckpt")
        remedy = "Give a last.ckpt or best.ckpt, or the folder of a run."
        if best.is_file():
            command = f"python train.py {shlex.quote(f'resume={best}')}"
            remedy = f"Resume from the best one: {command}"
        raise UserError(f"resume={value}: there is no checkpoint {path.absolute()}.", remedy)
    return path.absolute()


def _log_whole_traceback(error: Exception) -> str | None:
    """Write the whole traceback into the log file of the run; the file's path, if it stays."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            failure = (type(error), error, error.__traceback__)
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "failed", (), failure))
            is_temporary = _value(sys.argv[1:], "check")
            return None if is_temporary else os.path.relpath(handler.baseFilename)
    return None


def _wants_full_error() -> bool:
    return os.environ.get(FULL_ERROR, "0") not in ("", "0")
