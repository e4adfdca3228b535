"""Tables for the screen: aligned whatever the script, and nothing in them that a terminal would obey."""

import unicodedata
from collections.abc import Sequence


def width(text: str) -> int:
    """How many places of a terminal a text takes: an East Asian character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def brief(text: str) -> str:
    """A fraction with more digits than anyone compares, cut to four of them; any other text as it is."""
    if len(text) <= 8 or not set(text) & set(".e"):
        return text
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Rows as lines; a character that cannot be printed is escaped.

    Args:
        rows: cells, the same number in each.
        numbers: all columns but the first hold numbers, which stand to the right.
    """
    shown = [["".join(c if c.isprintable() else ascii(c)[1:-1] for c in cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]

    def padded(i: int, cell: str) -> str:
        blanks = " " * (widths[i] - width(cell))
        return blanks + cell if numbers and i else cell + blanks

    return "\n".join("  ".join(padded(i, cell) for i, cell in enumerate(row)).rstrip() for row in shown)
