"""What stands between the shell and Hydra: paths taken verbatim, resumed runs, errors in two lines. Imports nothing heavy."""

import argparse
import atexit
import difflib
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from src.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).parent.parent / "conf"
VERBATIM = ("ckpt", "path", "run", "resume", "output")  # keys whose values Hydra's grammar must not read
TAKE_A_VALUE = ("-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir")  # Hydra's options
# As it was typed: `run` sets HYDRA_FULL_ERROR for itself, and says so to the processes that this one starts.
WANTS_TRACEBACK = os.environ.get("WANTS_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) not in ("", "0")


def run(main: Callable[[], object]) -> None:
    """Run an entry point decorated by `hydra.main` on this process's command line, and exit with the right code.

    Mistakes that a person can put right end with two lines and exit code 2. `HYDRA_FULL_ERROR=1` asks for the traceback.
    """
    # conf/hydra/launcher gives defaults to launchers that keep a schema of the same name.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/.*' is validated against", category=UserWarning)
    os.environ["WANTS_TRACEBACK"] = str(int(WANTS_TRACEBACK))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    argparse.ArgumentParser.error = _usage_error  # type: ignore  # Hydra's parser would print its usage over eight lines
    with two_line_errors():
        arguments = together(_without_folder(_continue_run(sys.argv[1:])))
        sys.argv[1:] = [quote(argument) for argument in arguments]
        try:
            main()
        except Exception as error:
            problem = None if WANTS_TRACEBACK else hydra_problem(error)
            if problem is None:
                raise
            fail(*problem)
        except KeyboardInterrupt:
            if WANTS_TRACEBACK:
                raise
            print("Interrupted.", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)


def _without_folder(arguments: list[str]) -> list[str]:
    """Where only a check is asked for: what Hydra writes goes to a folder that is deleted at the end."""
    if not any(argument.startswith("check=") and argument not in ("check=false", "check=") for argument in arguments):
        return arguments
    folder = tempfile.mkdtemp(prefix="check-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    keys = ("hydra.run.dir", "hydra.sweep.dir")
    kept = [argument for argument in arguments if argument.partition("=")[0] not in keys]
    return [*(f"{key}={quoted(folder)}" for key in keys), *kept]


def together(arguments: list[str]) -> list[str]:
    """Options first, then settings, each in their order: Hydra's parser refuses settings on both sides of an option."""
    options: list[str] = []
    settings: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        setting = argument.startswith("~") or ("=" in argument and not argument.startswith("-"))
        (settings if setting and before not in TAKE_A_VALUE else options).append(argument)
    return [*options, *settings]


def _usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    fail(f"{message}.", "Settings are typed as KEY=VALUE, Hydra's own options begin with a dash: python train.py --help lists both.")


@contextmanager
def two_line_errors() -> Iterator[None]:
    """End the program with two lines and exit code 2 on a `UserError`. Inside a Hydra job, so that Hydra adds nothing of its own."""
    try:
        yield
    except UserError as error:
        if WANTS_TRACEBACK:
            traceback.print_exc()
        fail(error.problem, error.remedy)


def require(cfg: "DictConfig", *keys: str) -> None:
    """Raise a `UserError` for the first of `keys` that was not typed: `???` in the YAML."""
    from omegaconf import OmegaConf

    for key in keys:
        if OmegaConf.is_missing(cfg, key):
            raise UserError(
                f"{key}= is missing.", f"Add {key}=... to the command; python {Path(sys.argv[0]).name} --cfg job shows every key."
            )


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
    """Two lines for an error of Hydra's or OmegaConf's about the command line, or of the disk's; None for anything else."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, HydraException):
        remedy = "Choose another folder with hydra.run.dir=FOLDER, or make room."
        return f"{error.filename} cannot be written or read: {error.strerror}.", remedy
    if not isinstance(error, HydraException | OmegaConfBaseException) and not _raised_by_hydra(error):
        return None
    cause = error.__cause__
    missing = getattr(cause, "key", None)
    if isinstance(missing, str) and (typed := re.match(r"Could not override '(.*?)'", str(error))):
        if missing != typed[1] and missing not in typed[1].split("."):  # the key is there, but holds less than it shall
            return f"{typed[1]} has no {missing} yet.", f"Add it with a plus sign: '+{typed[1]}=...'."
        return _unknown_key(typed[1], missing, getattr(cause, "parent_node", None))
    if "group override must be" in str(error):  # Hydra does not say which
        no_name = re.compile(r"null|true|false|[-+.\d]+(e[-+\d]+)?|\{.*\}", re.IGNORECASE)  # what Hydra's grammar takes for no text
        settings = (argument.partition("=") for argument in sys.argv[1:])
        wrong = (parts for parts in settings if (CONF / parts[0]).is_dir() and no_name.fullmatch(parts[2]))
        group, _, value = next(wrong, ("GROUP", "=", "VALUE"))
        return f"{group}={value}: a group is set by the name of one of its files.", f"Type {group}=NAME, or {group}=[] for none of them."
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line]
    problem = lines[0] if lines else type(error).__name__
    if cause is not None and str(cause) and str(cause).splitlines()[0] not in problem:
        problem += f" ({str(cause).splitlines()[0]})"
    return problem, _remedy(problem, lines)


def _raised_by_hydra(error: Exception) -> bool:
    """Whether a ValueError or the like comes from reading the command line: Hydra lets some of them through as they are."""
    return isinstance(error, TypeError | ValueError) and raised_in(error, "hydra", "omegaconf")


def raised_in(error: BaseException, *packages: str) -> bool:
    """Whether an error was raised by the code of one of these packages."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return module.partition(".")[0] in packages


def _unknown_key(typed: str, name: str, node: "DictConfig | None") -> tuple[str, str]:
    """Two lines for a key that the config does not have, with the nearest ones that it has."""
    above = node._get_full_key(None) if node is not None else ""
    prefix = f"{above}." if above else ""
    siblings = [str(key) for key in node] if node is not None else []
    rest = typed.removeprefix(prefix).removeprefix(name)
    choices = [f"{prefix}{key}{rest}" for key in closest(name, siblings)]
    if "/" in typed:  # a group
        choices = closest(typed, [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()])
    if not choices and node is not None:  # the right name in the wrong place, such as lr=0.1
        choices = [key for key in _keys(node._get_root()) if key.rpartition(".")[2] == name and not key.startswith("hydra.")]
    problem = f"There is no setting {typed}."
    if choices:
        return problem, f"Did you mean {' or '.join(choices)}?"
    known = ", ".join(key for key in siblings if not key.startswith("_") and key != "hydra")
    shown = f"{above or 'The config'} has {known}" if known else "python train.py --cfg job shows every setting"
    return problem, f"{shown}; +{typed}=... adds a key."


def _keys(node: "DictConfig", above: str = "") -> Iterator[str]:
    for key in node:
        yield f"{above}{key}"
        child = node._get_node(key)
        if hasattr(child, "keys") and not child._is_none() and not child._is_missing() and not child._is_interpolation():
            yield from _keys(child, f"{above}{key}.")


def closest(name: str, known: Iterable[str]) -> list[str]:
    """The names most like `name`, best first; empty where none is like it."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def _remedy(problem: str, lines: list[str]) -> str:
    for i, line in enumerate(lines):
        if line.startswith("Available options in"):
            options = lines[i + 1 :]
            options = options[: options.index("Config search path:")] if "Config search path:" in options else options
            wanted = re.search(r"'([^']*)'$", problem.rstrip("."))
            near = closest(wanted[1].rpartition("/")[2], options) if wanted else []
            return (f"Did you mean {' or '.join(near)}? " if near else "") + f"Choose one of: {', '.join(options)}."
    if (plus := next((line for line in lines if line.startswith("Either remove + prefix")), None)) is not None:
        return f"Leave out the plus sign: {plus.partition(': ')[2]}."
    if "parsing override" in problem or "viable alternative" in problem or "input" in problem:
        return "Write KEY=VALUE without blanks; quote lists and braces for the shell: 'optimizer.betas=[0.9,0.99]'."
    script = Path(sys.argv[0]).name
    return f"python {script} --help lists the groups, python {script} --cfg job every key."


def _continue_run(arguments: list[str]) -> list[str]:
    """Where `resume=` is typed: the checkpoint's full path, and its run folder as this run's folder."""
    value = next((a.partition("=")[2] for a in arguments if a.startswith("resume=")), "null")
    if value in ("null", "") or value.startswith("'"):
        return arguments
    folder = next((a.partition("=")[2].strip("'\"") for a in arguments if a.startswith("hydra.run.dir=")), None)
    checkpoint = _find_checkpoint(value, folder)
    inside_run = checkpoint.parent.name == "checkpoints"
    rest = [a for a in arguments if not a.startswith("resume=")]
    added = [f"resume={checkpoint}"]
    if folder is None and inside_run:
        added.append(f"hydra.run.dir={quoted(str(checkpoint.parent.parent))}")
    return [*added, *rest]


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
        if not path.is_file() and (best := path.with_name("best.ckpt")).is_file():
            raise UserError(f"There is no checkpoint {path}.", f"Go on from the best one: python train.py {shlex.quote(f'resume={best}')}")
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.", "Give a last.ckpt or best.ckpt, or the folder of a run.")
    return path.absolute()
