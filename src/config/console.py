"""What is printed and logged, whatever class and file names hold and whoever reads it."""

import logging
import os
import sys

from ..runs.text import LINES, printable


class ConsoleHandler(logging.StreamHandler):
    """Writes log messages until nobody reads them any more; the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            discard_output()
        else:
            super().handleError(record)


class LogFile(logging.FileHandler):
    """Writes log messages to a file until the disk is full; the run goes on, or ends for itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class PlainFormatter(logging.Formatter):
    """Escapes control characters, which class and file names may hold, on screen and in files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), LINES)


def show(text: str, error: bool = False) -> None:
    """Print lines without the control characters in them."""
    print(printable(text, LINES), file=sys.stderr if error else sys.stdout, flush=True)


def discard_output() -> None:
    """Let nothing fail that still prints; `python train.py --help | head` closes the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
