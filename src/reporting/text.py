"""Numbers, names and tables as text, the same for the console and for pages."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runs.text import printable

MAX_WIDTH = 10_000  # of a table, in characters: lines are not wrapped


def format_number(value: Any) -> str:
    """A value as tables show it: four decimals, or four digits where four decimals show none.

    Missing values (None, NaN) are empty. Text stays as it is, except for numbers of more than
    eight characters, which are cut to four digits.
    """
    if value is None or value != value:  # NaN differs from itself
        return ""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            fixed = value == 0 or 1e-3 <= abs(value) < 1e4
            return f"{value:.4f}" if fixed else f"{value:.4g}"
    text = str(value)
    if len(text) <= 8 or not set(text) & set(".e"):
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """0.123 -> 12.3 %, with a blank at which no line breaks; a missing value is a dash."""
    if fraction is None:
        return "\N{EN DASH}"
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def format_duration(seconds: float) -> str:
    """4.2 s, 3 min 20 s or 5 h 10 min."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shorten(text: str, width: int) -> str:
    """Printable text of at most `width` columns, of which an East Asian character takes two.

    It is cut in its middle, since long names often differ only at their ends.
    """
    text = short = printable(text)
    kept = width
    while cell_len(short) > width:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def render_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as aligned lines of plain text, numbers to the right, values by `format_number`."""
    rows = [list(row) for row in rows]
    table = Table.grid(padding=(0, 2, 0, 0))
    for i in range(len(columns)):
        numeric = rows and all(isinstance(row[i], int | float | None) for row in rows)
        table.add_column(justify="right" if numeric else "left")
    for row in [columns, *rows]:
        table.add_row(*(Text(printable(format_number(value))) for value in row))
    console = Console(width=MAX_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
