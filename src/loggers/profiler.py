"""The table of `trainer.profiler=simple`."""

import math

from lightning.pytorch.profilers import SimpleProfiler

from ..reporting.text import render_table, shorten

ROWS = 30
WIDTH = 64  # of the name of an action


class CompactProfiler(SimpleProfiler):
    """Lightning's SimpleProfiler with a table of at most 120 columns, slowest actions first."""

    def summary(self) -> str:
        """The table of the actions so far."""
        totals = {name: math.fsum(times) for name, times in self.recorded_durations.items()}
        slowest = sorted(totals, key=totals.__getitem__, reverse=True)[:ROWS]
        rows = []
        for name in slowest:
            calls = len(self.recorded_durations[name])
            rows.append([shorten(name, WIDTH), totals[name], calls, 1000 * totals[name] / calls])
        return "\n" + render_table(["action", "seconds", "calls", "ms per call"], rows)
