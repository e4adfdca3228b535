"""What is printed and logged."""

import errno
import logging

import pytest

from src.config.cli import two_line_errors
from src.config.console import LogFile, PlainFormatter, show


def test_control_characters_are_escaped(capsys):
    show("a\x1b[31m\n\u202e \N{NO-BREAK SPACE}猫\udcff")
    assert capsys.readouterr().out == "a\\x1b[31m\n\\u202e \N{NO-BREAK SPACE}猫\\udcff\n"
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", ("\x9b2J",), None)
    assert PlainFormatter("%(message)s").format(record) == r"\x9b2J"


def test_a_full_disk_does_not_fill_the_screen(tmp_path, capsys, monkeypatch):
    handler = LogFile(tmp_path / "train.log", encoding="utf-8", delay=True)

    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(handler, "flush", fail)
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "text", (), None))
    assert capsys.readouterr().err == ""


def test_a_full_disk_has_two_lines_where_the_error_names_no_file(capsys):
    """What Hydra's first write raises."""
    with pytest.raises(SystemExit) as caught, two_line_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 2 and "The disk is full" in lines[0]
