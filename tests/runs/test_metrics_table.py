"""metrics.csv: rows by epoch, columns in a fixed order, restored from a checkpoint."""

from src.runs.metrics_table import MetricsTable


def test_rows_and_columns(tmp_path):
    table = MetricsTable()
    table.update(1, {"val/loss": 0.5, "seconds": 1.0})
    table.update(0, {"train/loss": 2.0, "step": 9})
    table.update(1, {"train/loss": 1.0, "step": 19})
    table.write(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,step,train/loss,val/loss,seconds",
        "0,9,2.0,,",
        "1,19,1.0,0.5,1.0",
    ]


def test_the_state_is_that_of_the_checkpoint():
    table, other = MetricsTable(), MetricsTable()
    table.update(0, {"train/loss": 2.0})
    state = table.state()
    table.update(1, {"train/loss": 1.0})
    other.load_state(state)
    assert other.row(0) == {"epoch": 0, "train/loss": 2.0} and other.row(1) == {}
