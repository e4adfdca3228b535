"""`metrics.csv`: one row per epoch, rewritten whole after each."""

from pathlib import Path
from typing import Any

from .files import write_csv

FIRST_COLUMNS = ("epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc")


class MetricsTable:
    """The rows of the epochs so far, by epoch from 0. A checkpoint keeps them as its state."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def update(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add metrics to the row of an epoch."""
        self.rows.setdefault(epoch, {"epoch": epoch}).update(metrics)

    def row(self, epoch: int) -> dict[str, float]:
        """What is known of an epoch."""
        return self.rows.get(epoch, {})

    def last(self) -> dict[str, float]:
        """The row of the last epoch."""
        return self.row(max(self.rows, default=0))

    def write(self, path: Path) -> None:
        """Write all rows as CSV; cells without a value are empty."""
        names = {name for row in self.rows.values() for name in row}
        columns = [name for name in FIRST_COLUMNS if name in names]
        columns += sorted(names - set(FIRST_COLUMNS))
        rows = [self.rows[epoch] for epoch in sorted(self.rows)]
        write_csv(path, columns, [[row.get(name, "") for name in columns] for row in rows])

    def state(self) -> list[dict[str, Any]]:
        """The rows in plain types."""
        return [dict(row) for row in self.rows.values()]

    def load_state(self, rows: list[dict[str, Any]]) -> None:
        """Replace the rows by those of a checkpoint."""
        self.rows = {int(row["epoch"]): dict(row) for row in rows}
