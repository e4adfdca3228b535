"""Charts as SVG text: lines, bars, a confusion matrix, a reliability diagram. Colours are CSS variables: a page's dark mode reaches them.

Charts are drawn about 400 units wide, which is their width on a phone: there a unit is a pixel, elsewhere it grows with the page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from src.text_table import brief
from src.text_table import width as text_width

Points = Sequence[tuple[float, float]]
WIDTH = 400

# The same for the report's page and for a chart in a file of its own. Blue and orange are told apart by every kind of sight.
STYLE = """
:root { --text: #1c2430; --faint: #667085; --line: #d9dee6; --paper: #ffffff; --blue: #0b6bb5; --orange: #c2500a; --on-blue: #ffffff }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6eaf0; --faint: #98a2b3; --line: #343c49; --paper: #171b21; --blue: #5cb3f5; --orange: #f0964f; --on-blue: #0d1117 }
}
svg.chart { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif }
svg.chart text { fill: var(--text) }
svg.chart .faint { fill: var(--faint) }
svg.chart .grid { stroke: var(--line); fill: none }
svg.chart .frame { stroke: var(--line); fill: none }
svg.chart .blue { stroke: var(--blue); fill: none; stroke-width: 2 }
svg.chart .orange { stroke: var(--orange); fill: none; stroke-width: 2; stroke-dasharray: 5 3 }
svg.chart .fill-blue { fill: var(--blue) }
svg.chart .fill-orange { fill: var(--orange) }
svg.chart text.on-blue { fill: var(--on-blue) }
"""


def standalone(chart: Markup) -> str:
    """A chart as the content of an .svg file."""
    head, _, rest = chart.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">\n<style>{STYLE}svg {{ background: var(--paper) }}</style>{rest}\n'


def _svg(height: float, label: str, body: Sequence[Any], width: float = WIDTH) -> Markup:
    parts = "\n".join(str(part) for part in body)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">\n{}\n</svg>').format(
        _n(width), _n(height), label, Markup(parts)
    )


def _text(x: float, y: float, text: Any, cls: str = "", anchor: str = "start", tip: str = "") -> Markup:
    tip = Markup("<title>{}</title>").format(tip) if tip else ""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}{}</text>').format(_n(x), _n(y), cls, anchor, tip, text)


def _line(x1: float, y1: float, x2: float, y2: float, cls: str = "grid") -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), cls)


def _box(x: float, y: float, width: float, height: float, cls: str, opacity: float = 1.0, tip: str = "") -> Markup:
    tip = Markup("<title>{}</title>").format(tip) if tip else ""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}" fill-opacity="{}">{}</rect>').format(
        _n(x), _n(y), _n(width), _n(height), cls, _n(opacity), tip
    )


def _n(value: float) -> str:
    """A number as short as a picture needs it."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def percent(share: float, digits: int = 1) -> str:
    """0.123 -> 12.3 %, with a blank that no line breaks at."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def shorten(text: str, most: int) -> str:
    """Text that takes at most so many columns; cut in its middle, since names share beginnings and differ in their ends."""
    if text_width(text) <= most:
        return text
    head = tail = ""
    room = most - 1
    left, right = 0, len(text) - 1
    while True:
        side = left if len(head) <= len(tail) else right
        room -= text_width(text[side])
        if room < 0:
            return f"{head}…{tail}"
        if side == left:
            head, left = head + text[left], left + 1
        else:
            tail, right = text[right] + tail, right - 1


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from within `low` to `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(series: Mapping[str, Points], label: str, mark: float | None = None, fractions: bool = False) -> Markup:
    """Curves over epochs: one solid, the next dashed.

    Args:
        series: name -> (epoch, value) pairs; values that are not finite are left out.
        label: what is drawn, for people who cannot see it.
        mark: an epoch to point out, the best one.
        fractions: values are fractions and are shown as percentages.
    """
    height, left, right, top, bottom = 230, 46, WIDTH - 12, 26, 202
    series = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return _svg(60, label, [_text(WIDTH / 2, 34, "nothing recorded", "faint", "middle")])
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = (low - room if low < 0 or low > room else 0.0), high + room
    if fractions:
        high = min(high, 1.0) if max(ys) < 1 else 1.02
    first, last = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return left + 6 + across * (right - left - 12), bottom - (y - low) / (high - low) * (bottom - top)

    body: list[Any] = []
    for value in ticks(low, high):
        y = at(first, value)[1]
        name = f"{100 * value:.4g}\N{NO-BREAK SPACE}%" if fractions else f"{value:.4g}"
        body += [_line(left, y, right, y), _text(left - 6, y + 4, name, "faint", "end")]
    for value in ticks(first, last, 8):
        if float(value).is_integer():
            body.append(_text(at(value, low)[0], bottom + 15, int(value), "faint", "middle"))
    body.append(_text((left + right) / 2, height - 2, "epoch", "faint", "middle"))
    if mark is not None and first <= mark <= last:
        x = at(mark, low)[0]
        body += [_line(x, top, x, bottom), _text(x, top - 4, "best", "faint", "middle" if left + 20 < x < right - 20 else "end")]
    legend = float(left)
    for (name, points), cls in zip(series.items(), ("blue", "orange"), strict=False):
        places = [at(x, y) for x, y in _thinned(points)]
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in places)
        body.append(Markup('<polyline points="{}" class="{}" stroke-linejoin="round"/>').format(path, cls))
        if len(points) <= 40:
            for (x, y), (epoch, value) in zip(places, points, strict=True):
                tip = Markup("<title>{}, epoch {}: {}</title>").format(name, _n(epoch), f"{value:.5g}")
                body.append(Markup('<circle cx="{}" cy="{}" r="2.5" class="fill-{}">{}</circle>').format(_n(x), _n(y), cls, tip))
        body += [_line(legend, 9, legend + 20, 9, cls), _text(legend + 25, 13, name)]
        legend += 45 + 6.2 * len(name)
    return _svg(height, label, body)


def _thinned(points: Points, most: int = 500) -> Points:
    """At most so many of the points, evenly spaced, the last one among them."""
    step = math.ceil(len(points) / most)
    return points if step == 1 else [*points[:-1:step], points[-1]]


def bars(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Recall of each class as a bar, its precision as a tick across it.

    Args:
        rows: from `run_folder.per_class`.
    """
    left, right, step = 112, WIDTH - 52, 18
    bottom = 22 + step * len(rows)
    body: list[Any] = []
    body += [_box(left, 3, 14, 8, "fill-blue", 0.8), _text(left + 19, 11, "recall")]
    body += [_box(left + 66, 1, 3, 12, "fill-orange"), _text(left + 75, 11, "precision")]
    for share in (0, 0.5, 1):
        x = left + share * (right - left)
        body += [_line(x, 19, x, bottom), _text(x, bottom + 13, percent(share, 0), "faint", "middle")]
    for i, row in enumerate(rows):
        y = 22 + i * step
        tip = f"{row['class']}: recall {row['recall']:.4f}, precision {row['precision']:.4f}, {row['support']:,} pictures"
        body += [
            _text(left - 6, y + 12, shorten(row["class"], 13), anchor="end", tip=row["class"]),
            _box(left, y + 2, row["recall"] * (right - left), step - 5, "fill-blue", 0.8, tip),
            _box(left + row["precision"] * (right - left) - 1.5, y, 3, step - 1, "fill-orange"),
            _text(right + 6, y + 12, percent(row["recall"])),
        ]
    return _svg(bottom + 18, "Recall and precision of each class", body)


def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], support: Sequence[int]) -> Markup:
    """Counts, true classes down and predicted ones across, shaded by their share of the true class.

    Args:
        classes: those that are shown.
        counts: (true, predicted) for them.
        support: pictures of each of them, those predicted as classes that are not shown included.
    """
    longest = max(text_width(name) for name in classes)
    left, top = 14 + 7.4 * min(longest, 13), 28 + 5.4 * min(longest, 12)
    cell = min(max((WIDTH - left - 24) / len(classes), 23), 60)
    aside = max(3.6 * min(longest, 12) - cell / 2, 4)  # the last turned name leans over the edge
    width, height = max(left + cell * len(classes) + aside, WIDTH), top + cell * len(classes) + 4
    body: list[Any] = [_text(0, 11, "predicted across, true down", "faint")]
    for i, name in enumerate(classes):
        middle = (i + 0.5) * cell
        body.append(_text(left - 6, top + middle + 4, shorten(name, 13), anchor="end", tip=name))
        turned = Markup('<g transform="translate({} {}) rotate(-55)">{}</g>')
        body.append(turned.format(_n(left + middle + 3), top - 6, _text(0, 0, shorten(name, 12), tip=name)))
        for j, other in enumerate(classes):
            count = counts[i][j]
            x, y = left + j * cell, top + i * cell
            share = count / support[i] if support[i] else 0.0
            if not count:
                body.append(_box(x, y, cell, cell, "frame"))
                continue
            tip = f"{name} as {other}: {count:,} of {support[i]:,} ({percent(share)})"
            colour = "fill-blue" if i == j else "fill-orange"
            opacity = share if i == j else min(1.0, 0.12 + share * 2.5)  # mistakes are few: shaded to be seen
            body += [_box(x, y, cell, cell, "frame"), _box(x + 0.5, y + 0.5, cell - 1, cell - 1, colour, opacity, tip)]
            short = f"{count:,}" if count < 10_000 else f"{count / 1000:.0f}k"
            body.append(_text(x + cell / 2, y + cell / 2 + 4, short, "on-blue" if opacity > 0.6 else "", "middle"))
    return _svg(height, "Confusion matrix", body, width)


def reliability(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy against mean confidence in each stretch of confidence, and below it how many pictures lie there.

    Args:
        rows: from `measures.calibration`.
    """
    left, right, top, bottom, floor = 46, WIDTH - 12, 26, 216, 276
    across, up = right - left, bottom - top
    body: list[Any] = []
    body += [_box(left, 3, 14, 8, "fill-blue", 0.8), _text(left + 19, 11, "accuracy")]
    body += [_box(left + 80, 5, 14, 3, "fill-orange"), _text(left + 99, 11, "mean confidence")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + share * across, bottom - share * up
        body += [_line(left, y, right, y), _text(left - 6, y + 4, percent(share, 0), "faint", "end")]
        body.append(_text(x, floor + 14, percent(share, 0), "faint", "middle" if share < 1 else "end"))
    most = max((row["count"] for row in rows), default=0)
    for row in rows:
        if not row["count"]:
            continue
        x, width = left + row["low"] * across + 1, (row["high"] - row["low"]) * across - 2
        tip = f"confidence {row['low']:.2f} to {row['high']:.2f}: {row['count']:,} pictures"
        share = row["count"] / most * (floor - bottom - 12)
        body.append(_box(x, floor - share, width, share, "fill-blue", 0.4, tip))
        if not math.isfinite(row["confidence"]):
            continue
        tip += f", mean confidence {row['confidence']:.4f}, accuracy {row['accuracy']:.4f}"
        body.append(_box(x, bottom - row["accuracy"] * up, width, row["accuracy"] * up, "fill-blue", 0.8, tip))
        body.append(_box(x, bottom - row["confidence"] * up - 1.5, width, 3, "fill-orange", 1, tip))
    body += [_line(left, bottom, right, top), _line(left, floor, right, floor)]
    body.append(_text((left + right) / 2, floor + 29, "confidence, and how many pictures have it", "faint", "middle"))
    return _svg(floor + 34, "Reliability diagram", body)


def settings(points: Sequence[tuple[str, float]], key: str) -> Markup:
    """A figure of several runs against one of their settings: a dot a run, a line through the means.

    Numbers are placed by their value, by its logarithm where they span a power of ten; words stand side by side.

    Args:
        points: (the setting as it was typed, a fraction to be shown as a percentage); what is not finite is left out.
        key: the setting's name.
    """
    height, left, right, top, bottom = 200, 52, WIDTH - 16, 12, 164
    points = [(value, y) for value, y in points if math.isfinite(y)]
    if not points:
        return _svg(60, key, [_text(WIDTH / 2, 34, "no figures yet", "faint", "middle")])
    places = _places(sorted({value for value, _ in points}))
    low, high = min(y for _, y in points), max(y for _, y in points)
    room = (high - low) * 0.08 or 0.01
    low, high = max(low - room, 0.0), min(high + room, 1.0)

    def at(value: str, y: float) -> tuple[float, float]:
        return left + 12 + places[value] * (right - left - 24), bottom - (y - low) / (high - low or 1.0) * (bottom - top)

    body: list[Any] = []
    for y in ticks(low, high):
        across = at(points[0][0], y)[1]
        body += [_line(left, across, right, across), _text(left - 6, across + 4, f"{100 * y:.4g} %", "faint", "end")]
    end = -math.inf
    for value in sorted(places, key=places.__getitem__):
        x, shown = at(value, low)[0], shorten(brief(value), 14)
        if x - 3.2 * len(shown) > end:
            body.append(_text(x, bottom + 16, shown, "faint", "middle", value))
            end = x + 3.2 * len(shown) + 4
    means = {value: [y for other, y in points if other == value] for value in sorted(places, key=places.__getitem__)}
    line = (at(value, sum(ys) / len(ys)) for value, ys in means.items())
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in line)
    body.append(Markup('<polyline points="{}" class="orange"/>').format(path))
    for value, y in points:
        x, across = at(value, y)
        tip = Markup("<title>{}={}: {}</title>").format(key, value, f"{y:.4f}")
        dot = Markup('<circle cx="{}" cy="{}" r="4" class="fill-blue" fill-opacity="0.75">{}</circle>')
        body.append(dot.format(_n(x), _n(across), tip))
    body.append(_text((left + right) / 2, height - 4, key, "faint", "middle"))
    return _svg(height, f"Validation accuracy by {key}", body)


def _places(values: Sequence[str]) -> dict[str, float]:
    """Where along an axis from 0 to 1 each value stands."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [float(i) for i in range(len(values))]
    if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
        numbers = [math.log(number) for number in numbers]
    first, last = min(numbers), max(numbers)
    return {value: (number - first) / (last - first) if last > first else 0.5 for value, number in zip(values, numbers, strict=True)}


def history(points: Points) -> Markup:
    """What each trial of a search reached, a dot a trial, and the lowest so far as a line.

    Losses that are far above the others are drawn at the upper edge, where they do not flatten the rest.

    Args:
        points: (number of the trial, its validation loss), in this order; what is not finite is left out.
    """
    height, left, right, top, bottom = 220, 46, WIDTH - 12, 26, 186
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if not points:
        return _svg(60, "Validation loss by trial", [_text(WIDTH / 2, 34, "no figures yet", "faint", "middle")])
    ys = sorted(y for _, y in points)
    low, middle = ys[0], ys[len(ys) // 2]
    high = min(ys[-1], middle + 3 * (middle - low)) if middle > low else ys[-1]
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = max(low - room, min(low, 0.0)), high + room
    first, last = points[0][0], points[-1][0]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return left + 6 + across * (right - left - 12), bottom - (min(y, high) - low) / (high - low) * (bottom - top)

    body: list[Any] = [_box(left, 5, 8, 8, "fill-blue", 0.75), _text(left + 13, 13, "a trial")]
    body += [_line(left + 70, 9, left + 90, 9, "orange"), _text(left + 95, 13, "lowest so far")]
    for value in ticks(low, high):
        y = at(first, value)[1]
        body += [_line(left, y, right, y), _text(left - 6, y + 4, f"{value:.4g}", "faint", "end")]
    for value in ticks(first, last, 8):
        if float(value).is_integer():
            body.append(_text(at(value, low)[0], bottom + 15, int(value), "faint", "middle"))
    path, best = "", math.inf
    for x, y in points:
        if path:
            path += f" {_n(at(x, best)[0])},{_n(at(x, best)[1])}"
        best = min(best, y)
        path += f" {_n(at(x, best)[0])},{_n(at(x, best)[1])}"
    body.append(Markup('<polyline points="{}" class="orange"/>').format(path.strip()))
    for x, y in points:
        dot = Markup('<circle cx="{}" cy="{}" r="4" class="fill-blue" fill-opacity="0.75"><title>trial {}: {}</title></circle>')
        body.append(dot.format(*map(_n, at(x, y)), _n(x), f"{y:.5g}"))
    body.append(_text((left + right) / 2, height - 4, "trial", "faint", "middle"))
    return _svg(height, "Validation loss by trial", body)


def shares(values: Mapping[str, float]) -> Markup:
    """Parts of a whole by name, a bar each.

    Args:
        values: fractions by name.
    """
    left, right, step = 160, WIDTH - 48, 20
    body: list[Any] = []
    for i, (name, share) in enumerate(values.items()):
        y = i * step
        body += [
            _text(left - 6, y + 14, shorten(name, 25), anchor="end", tip=name),
            _box(left, y + 4, share * (right - left), step - 6, "fill-blue", 0.8, f"{name}: {share:.4f}"),
            _text(left + share * (right - left) + 6, y + 14, percent(share)),
        ]
    return _svg(step * len(values) + 6, "Shares by name", body)


def lr_curve(points: Points, smooth: Points, mark: float) -> Markup:
    """Training loss against a rising learning rate on a logarithmic axis, with the rate that is suggested.

    Args:
        points: (rate, loss of the batch); what lies far above the start is drawn at the upper edge.
        smooth: (rate, smoothed loss).
        mark: the suggestion.
    """
    height, left, right, top, bottom = 230, 46, WIDTH - 12, 26, 192
    points = [(x, y) for x, y in points if math.isfinite(y)]
    low, start = min(y for _, y in [*points, *smooth]), smooth[0][1]
    high = min(max(y for _, y in points), start + 0.5 * (start - low))
    low = max(low - 0.05 * (high - low), 0.0)
    first, last = math.log10(points[0][0]), math.log10(points[-1][0])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - first) / (last - first)
        return left + across * (right - left), bottom - (min(y, high) - low) / (high - low) * (bottom - top)

    body: list[Any] = [_box(left, 5, 8, 8, "fill-blue", 0.5), _text(left + 13, 13, "a batch")]
    body += [_line(left + 70, 9, left + 90, 9, "orange"), _text(left + 95, 13, "smoothed")]
    for value in ticks(low, high):
        y = at(points[0][0], value)[1]
        body += [_line(left, y, right, y), _text(left - 6, y + 4, f"{value:.4g}", "faint", "end")]
    for power in range(math.ceil(first), math.floor(last) + 1):
        body.append(_text(at(10.0**power, low)[0], bottom + 15, f"1e{power}", "faint", "middle"))
    for x, y in points:
        body.append(Markup('<circle cx="{}" cy="{}" r="2" class="fill-blue" fill-opacity="0.5"/>').format(*map(_n, at(x, y))))
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in (at(*point) for point in smooth))
    body.append(Markup('<polyline points="{}" class="orange" stroke-linejoin="round"/>').format(path))
    x = at(mark, low)[0]
    body += [_line(x, top, x, bottom, "blue"), _text(x, top - 3, f"{mark:.2g}", "", "middle")]
    body.append(_text((left + right) / 2, height - 4, "learning rate", "faint", "middle"))
    return _svg(height, "Training loss by learning rate", body)
