"""Tracebacks of mistakes in code, with the frames of libraries and of this project folded away."""

import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import FrameType

PACKAGE = Path(__file__).resolve().parents[1]
STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
INSTALLED = ("site-packages", "dist-packages")
# Rooms of this project whose frames say nothing about a mistake in somebody else's code.
ROOMS = ["callbacks", "config", "engine", "inference", "loggers", "reporting", "runs", "sweeps"]
MACHINERY = tuple(f"{room}/" for room in ROOMS)
# The part of them where people add no code.
CORE = ("config/", "engine/", "runs/", "sweeps/", "tasks/optim.py")
MAX_LINES = 25  # on the screen
MAX_MESSAGE = 12  # lines of them for the type and message of the exception


def is_library(filename: str) -> bool:
    """Whether a source file belongs to Python or to an installed package."""
    is_standard = filename.startswith(("<frozen", STANDARD_LIBRARY))
    return is_standard or not set(INSTALLED).isdisjoint(Path(filename).parts)


def is_machinery(filename: str, rooms: tuple[str, ...] = MACHINERY) -> bool:
    """Whether a source file is an entry point of this project or lies in one of these rooms."""
    path = Path(filename).resolve()
    if path.parent == PACKAGE.parent:
        return path.stem in ("train", "evaluate", "predict", "export", "search", "compare")
    if not path.is_relative_to(PACKAGE):
        return False
    return path.relative_to(PACKAGE).as_posix().startswith(rooms)


def own_frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of an error in code that people write: of neither a library nor the core."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        filename = frame.f_code.co_filename
        if not is_library(filename) and not is_machinery(filename, CORE):
            yield frame


def raised_in(error: BaseException, *packages: str) -> bool:
    """Whether code of one of these packages raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in packages


def format_error(error: BaseException, log_file: str | None = None) -> str:
    """The traceback of an error as it helps the author of the code that failed.

    Frames of libraries and of this project's machinery are folded into one line, except for the
    last frame outside of libraries. Where only such frames remain, nothing is folded.

    Args:
        error: an exception with its traceback.
        log_file: the file that has the whole traceback.
    """
    summary = traceback.TracebackException.from_exception(error)
    lines = list(_format_chain(summary))
    message = _clip(_split(summary.format_exception_only()), MAX_MESSAGE)
    where = f" It is also in {log_file}." if log_file else ""
    hint = f"HYDRA_FULL_ERROR=1 shows the whole traceback.{where}"
    room = MAX_LINES - len(message) - 2
    if len(lines) > room:
        lines = ["  ...", *lines[len(lines) - room + 1 :]]
    return "\n".join(["Traceback (most recent call last):", *lines, *message, hint])


def _format_chain(summary: traceback.TracebackException) -> Iterator[str]:
    """Lines of the frames, those of the exceptions that led to this one first."""
    context = None if summary.__suppress_context__ else summary.__context__
    cause = summary.__cause__ or context
    if cause is not None:
        yield from _format_chain(cause)
        yield from _clip(_split(cause.format_exception_only()), 3)
        yield "which led to:"
    is_syntax_error = issubclass(summary.exc_type or Exception, SyntaxError)
    yield from _fold(summary.stack, fold_all=is_syntax_error)  # which names its file and line


def _fold(stack: traceback.StackSummary, fold_all: bool) -> Iterator[str]:
    outside = [frame for frame in stack if not is_library(frame.filename)]

    def is_shown(frame: traceback.FrameSummary) -> bool:
        own = not is_library(frame.filename) and not is_machinery(frame.filename)
        return own or not (fold_all or outside) or (frame is outside[-1] and not fold_all)

    for shown, group in groupby(stack, is_shown):
        frames = list(group)
        if shown:
            yield from _split(traceback.format_list(frames))
        else:
            names = ", ".join(dict.fromkeys(_package(frame.filename) for frame in frames))
            yield f"  ... {len(frames)} frame{'s' if len(frames) > 1 else ''} in {names}"


def _package(filename: str) -> str:
    """The name of the package that a source file belongs to."""
    if not is_library(filename):
        return "this project"
    parts = Path(filename).parts
    for folder in INSTALLED:
        if folder in parts:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    return "Python"


def _split(chunks: Iterable[str]) -> list[str]:
    return "".join(chunks).rstrip("\n").split("\n")


def _clip(lines: list[str], most: int) -> list[str]:
    """At most that many lines: the first one and the last ones."""
    if len(lines) <= most:
        return lines
    return [lines[0], "  ...", *lines[len(lines) - most + 2 :]]
