"""Parts that meet: runs whose folder was moved, averages and resuming, a folder that is taken, checkpoints from elsewhere."""

import csv
import shutil

import pytest
import torch
from conftest import assert_two_lines, composed, run_script, run_training

from src import measures
from src.build import build
from src.errors import UserError
from src.evaluation import evaluate
from src.tasks.predictions import Predictions

SMALL = ["model=lenet", "data.image_size=16", "trainer.limit_train_batches=6", "optimizer.lr=0.05", "scheduler=constant"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interactions") / "run"
    run_training(folder, *SMALL, "trainer.max_epochs=2", "callbacks.ema.enabled=true")
    return folder


def test_a_moved_run_keeps_its_best_checkpoint(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    last = moved / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    (best,) = [state for name, state in content["callbacks"].items() if name.startswith("BestCheckpoint")]
    best["best_model_score"] = best["kth_value"] = torch.tensor(0.0)  # nothing to come can be better
    best["best_k_models"] = {path: torch.tensor(0.0) for path in best["best_k_models"]}
    torch.save(content, last)
    before = (moved / "checkpoints" / "best.ckpt").read_bytes()
    results = run_training(moved, *SMALL, "trainer.max_epochs=3", "callbacks.ema.enabled=true", f"resume={last}")
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == before and results["best_epoch"] < 2
    with open(moved / "metrics.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]


@pytest.mark.parametrize("change", ["task.freeze_backbone=true", "task.decay_norm_and_bias=false", "callbacks.ema.enabled=false"])
def test_a_resumed_run_keeps_what_its_checkpoint_rests_on(run, change):
    before = (run / "results.json").read_bytes()
    options = [*SMALL, "trainer.max_epochs=3", "callbacks.ema.enabled=true", change]
    with pytest.raises(UserError, match=change.split("=")[0]):
        run_training(run, *options, f"resume={run}/checkpoints/last.ckpt")
    assert (run / "results.json").read_bytes() == before


def test_a_taken_folder_is_left_alone(run):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        run_training(run, *SMALL, "trainer.max_epochs=1")
    assert (run / "config.yaml").read_bytes() == before


def test_what_is_never_trained_is_the_same_in_the_average(run):
    stored = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert stored["state_dict"]["std"].flatten().tolist() == torch.tensor(stored["description"]["std"]).tolist()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["callbacks.ema.enabled=true", "callbacks.swa.enabled=true"], "both average"),
        (["trainer.limit_val_batches=0"], "limit_val_batches=0"),
        (["trainer.max_epochs=0"], "max_epochs=0"),
    ],
)
def test_what_cannot_work_is_told_before_the_start(overrides, words):
    with pytest.raises(UserError, match=words):
        build(composed(overrides))


def test_no_test_batches_is_no_test(tmp_path):
    assert run_training(tmp_path, *SMALL, "trainer.max_epochs=1", "trainer.limit_test_batches=0")["test"] is None


@pytest.mark.parametrize(("classes", "names"), [(3, {"acc_top2"}), (5, {"acc_top2", "acc_top3", "acc_top4"})])
def test_top_k_stops_where_it_says_something(classes, names):
    likely = torch.arange(min(5, classes)).expand(4, -1)
    label = torch.zeros(4, dtype=torch.long)
    predictions = Predictions(torch.arange(4), label, label, likely, torch.ones(4), torch.ones(4))
    assert set(measures.top_k(predictions, classes)) == names


def test_a_weights_file_is_found_from_anywhere(tmp_path, monkeypatch):
    from src.build import resolve_paths

    (tmp_path / "w.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    cfg = composed(["model=resnet18", "model.weights=w.pt"])
    resolve_paths(cfg)
    assert cfg.model.weights == str(tmp_path / "w.pt")


@pytest.mark.slow
def test_evaluate_tells_mistakes_in_two_lines(run):
    assert_two_lines(run_script("evaluate.py"), "ckpt=")
    assert_two_lines(run_script("evaluate.py", f"ckpt={run}/checkpoints/best.ckpt", "trainer.precision=foo"), "foo")


def test_a_checkpoint_names_no_folder_to_write_into(dog_cat_root, tmp_path):
    run_training(
        tmp_path / "run", *SMALL, "data=dog_cat", f"data.root={dog_cat_root}", "data.val_size=20", "data.image_size=16",
        f"data.cache_dir={tmp_path}/theirs", "trainer.max_epochs=1",
    )  # fmt: skip
    shutil.rmtree(tmp_path / "theirs")
    evaluate(composed([f"ckpt={tmp_path}/run/checkpoints/best.ckpt", "trainer.accelerator=cpu"], "evaluate"), tmp_path / "out")
    assert not (tmp_path / "theirs").exists()
