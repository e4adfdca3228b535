"""Text from outside, such as names of files and classes, made safe to print."""

JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # letters and emoji need them
LINES = "\n\t\N{NO-BREAK SPACE}"  # what several lines of output may hold


def printable(text: str, keep: str = "") -> str:
    """Text with its control characters escaped, which a terminal would obey and XML forbids.

    Args:
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    keep += JOINERS
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
