"""Numbers, names and tables as text."""

import math

from rich.cells import cell_len

from src.reporting import text


def test_numbers():
    values = [0.12345678, 1e-7, 0.0, 12, 12345, None, math.nan, True, "0.0123456789", "resnet18"]
    shown = ["0.1235", "1e-07", "0.0000", "12", "12,345", "", "", "true", "0.01235", "resnet18"]
    assert [text.format_number(value) for value in values] == shown
    assert text.format_percent(0.1234) == "12.3\N{NO-BREAK SPACE}%"
    assert text.format_percent(None) == "\N{EN DASH}"
    seconds = (4.21, 59.7, 200, 18_600)
    shown = ["4.2 s", "1 min 0 s", "3 min 20 s", "5 h 10 min"]
    assert [text.format_duration(value) for value in seconds] == shown


def test_long_names_are_cut_in_their_middle():
    assert text.shorten("short", 8) == "short"
    assert text.shorten("猫" * 10, 8) == "猫猫…猫"
    assert text.shorten("class number 1000", 8) == "clas…000"
    assert all(cell_len(text.shorten("a猫b" * 9, width)) <= width for width in range(2, 20))


def test_tables_are_aligned_and_harmless():
    table = text.render_table(
        ["class", "images"], [["猫", 3], ["[red]dog[/red]", 1234], ["\x1b[31m", None]]
    )
    assert table.splitlines() == [
        "class           images",
        "猫                   3",
        "[red]dog[/red]   1,234",
        "\\x1b[31m",
    ]
