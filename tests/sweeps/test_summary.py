"""What is summarized from the folders of jobs."""

import csv
import json
import statistics
from pathlib import Path

import yaml

from src.sweeps.summary import format_summary, read_jobs, write_summary


def write_job(
    folder: Path,
    overrides: list[str],
    val: float,
    test: float | None = None,
    f1: float | None = None,
    num_images: int = 100,
) -> None:
    """Write the folder of a completed job; its accuracy is 1 - loss."""
    results = {"status": "completed", "best_epoch": 3, "train_seconds": 1.5, "test": None}
    if f1 is not None:
        results["metrics"] = ["f1"]
    for split, loss in (("val", val), ("test", test)):
        if loss is not None:
            results[split] = {"loss": loss, "acc": 1 - loss} | ({} if f1 is None else {"f1": f1})
    run = {"status": "completed", "data": {"sizes": {"val": num_images}}}
    write_files(folder, overrides, results, run)


def write_files(folder: Path, overrides: list[str], results: dict, run: dict | None = None) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    (folder / "results.json").write_text(json.dumps(results))
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))


def read_rows(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def read_groups(sweep: Path, title: str) -> dict[str, str]:
    """The first row of the table of groups in summary.md."""
    lines = (sweep / "summary.md").read_text().split(title)[1].splitlines()
    header, row = (line.strip("| ").split(" | ") for line in (lines[2], lines[4]))
    return dict(zip(header, row, strict=True))


def test_jobs_are_ranked_by_validation_loss_and_repeats_are_grouped(tmp_path):
    losses = {
        ("0.1", 0): (0.30, 0.10),
        ("0.1", 1): (0.40, 0.11),
        ("0.01", 0): (0.20, 0.90),
        ("0.01", 1): (0.10, 0.80),
    }
    for i, ((lr, seed), (val, test)) in enumerate(losses.items()):
        overrides = ["model=lenet", f"optimizer.lr={lr}", f"seed={seed}"]
        write_job(tmp_path / str(i), overrides, val, test)
    failure = {"status": "failed", "error": "UserError: too\nlarge | <b>\x1b[31m"}
    write_files(tmp_path / "4", ["model=lenet", "optimizer.lr=9", "seed=0"], failure)
    write_summary(tmp_path)

    rows = read_rows(tmp_path)
    assert list(rows[0])[:4] == ["job", "optimizer.lr", "seed", "status"]  # model does not vary
    assert [row["job"] for row in rows] == ["3", "2", "0", "1", "4"]  # by test: 0, 1, 3, 2
    for row in rows[:-1]:
        results = json.loads((Path(row["folder"]) / "results.json").read_text())
        for name in ("val/loss", "val/acc", "test/loss", "test/acc"):
            split, metric = name.split("/")
            assert float(row[name]) == results[split][metric]
        assert float(row["train_seconds"]) == 1.5 and row["best_epoch"] == "3"
    assert rows[-1]["status"] == "failed" and rows[-1]["val/loss"] == ""
    assert rows[-1]["error"] == "UserError: too large | <b>\\x1b[31m"

    text = format_summary(tmp_path)
    groups = [line.split() for line in text.split("Over seed:")[1].splitlines()[2:5]]
    mean, deviation = statistics.fmean([0.1, 0.2]), statistics.stdev([0.1, 0.2])
    assert groups[0][:5] == ["0.01", "2", "2", f"{mean:.4f}", f"{deviation:.4f}"]
    assert groups[2][:3] == ["9", "1", "0"]
    assert "Job 4 failed: UserError: too large" in text
    assert "| 0.01 | 2 | 2 | 0.1500 | 0.0707 |" in (tmp_path / "summary.md").read_text()
    page = (tmp_path / "sweep.html").read_text()
    assert "&lt;b&gt;" in page and "<b>" not in page and 'http-equiv="refresh"' not in page


def test_extra_metrics_have_columns_means_and_deviations(tmp_path):
    """In a sweep in which two jobs have them and one has not."""
    for seed, f1 in enumerate((0.5, 0.7, None)):
        write_job(tmp_path / str(seed), [f"seed={seed}"], 0.1 + seed, 0.2, f1)
    write_summary(tmp_path)
    for column in ("val/f1", "test/f1"):
        assert [row[column] for row in read_rows(tmp_path)] == ["0.5", "0.7", ""]
    group = read_groups(tmp_path, "Over seed")
    assert group["val/f1"] == "0.6000"
    assert group["val/f1 std"] == f"{statistics.stdev([0.5, 0.7]):.4f}"


def test_long_numbers_are_short_on_the_screen_and_whole_in_the_csv_file(tmp_path):
    rates = {
        "0.009675075153392096": "0.009675",
        "3.3637102155497184e-06": "3.364e-06",
        "1.99e-3": "1.99e-3",
    }
    for i, rate in enumerate(rates):
        write_job(tmp_path / str(i), [f"optimizer.lr={rate}"], 0.1 + i)
    write_summary(tmp_path)
    assert [row["optimizer.lr"] for row in read_rows(tmp_path)] == list(rates)
    for text in (format_summary(tmp_path), (tmp_path / "summary.md").read_text()):
        for rate, shown in rates.items():
            assert f" {shown} " in text and (shown == rate or rate not in text)


def test_folds_are_pooled_over_all_images(tmp_path):
    sizes, correct = [10, 10, 9], [9, 8, 5]
    for fold, (size, count) in enumerate(zip(sizes, correct, strict=True)):
        overrides = ["data.num_folds=3", f"data.fold={fold}"]
        write_job(tmp_path / str(fold), overrides, 1 - count / size, num_images=size)
    write_summary(tmp_path)
    group = read_groups(tmp_path, "Over data.fold")
    assert group["val/acc pooled"] == f"{22 / 29:.4f}" and group["n"] == "3"
    assert group["val/acc"] == f"{statistics.fmean([9 / 10, 8 / 10, 5 / 9]):.4f}"


def test_a_loss_that_is_not_finite_ranks_last(tmp_path):
    for i, loss in enumerate((float("nan"), float("inf"), 0.5)):
        write_job(tmp_path / str(i), [f"model={'abc'[i]}"], loss)
    jobs, keys = read_jobs(tmp_path)
    assert list(jobs["job"]) == ["2", "0", "1"] and keys == ["model"]


def test_a_sweep_without_results_has_a_page_that_reloads_itself(tmp_path):
    for seed in range(2):
        (tmp_path / str(seed) / ".hydra").mkdir(parents=True)
        (tmp_path / str(seed) / ".hydra" / "overrides.yaml").write_text(f"[seed={seed}]")
    jobs = write_summary(tmp_path)
    assert list(jobs["status"]) == ["waiting", "waiting"]
    assert 'http-equiv="refresh"' in (tmp_path / "sweep.html").read_text()
    assert "2 jobs: 2 waiting." in format_summary(tmp_path)
