"""The MLflow logger, read back by MLflow's own client."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from helpers import QUICK, composed, run_warm

from src.engine.train import train
from src.errors import UserError

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
OPTIONS = ["model=lenet", "data.image_size=16", *QUICK, "logger=mlflow", "trainer.max_epochs=1"]


def runs(uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "image_classification")
    return client, client.search_runs([experiment.experiment_id])


def check_a_run_and_its_resumption(uri, folder):
    first = train(composed(OPTIONS), folder)
    train(
        composed([*OPTIONS, "trainer.max_epochs=2", f"resume={folder}/checkpoints/last.ckpt"]),
        folder,
    )
    client, (run,) = runs(uri)
    assert run.info.run_name == f"{folder.parent.name}/{folder.name}"
    assert run.info.status == "FINISHED"
    assert run.data.params["model"] == "LeNet" and run.data.params["trainer.max_epochs"] == "1"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")]
    assert steps == [2, 5]
    accuracies = client.get_metric_history(run.info.run_id, "results/test/acc")
    assert accuracies[0].value == pytest.approx(first["test"]["acc"])
    assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}
    plots = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    assert "plots/confusion_matrix.png" in plots


@pytest.mark.slow
def test_a_resumed_run_continues_its_mlflow_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # of mlflow.db
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_a_run_and_its_resumption("sqlite:///mlflow.db", tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    resume = f"resume={tmp_path}/run/checkpoints/last.ckpt"
    with pytest.raises(UserError, match="MLflow has no run"):
        train(composed([*OPTIONS, "trainer.max_epochs=3", resume]), tmp_path / "run")


@pytest.mark.slow
def test_jobs_of_a_sweep_have_a_run_each(tmp_path):
    typed = [*OPTIONS, "~callbacks.report", "seed=0,1", "hydra.sweep.dir=sweep"]
    result = run_warm("train.py", "-m", *typed, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    _, found = runs(f"sqlite:///{tmp_path}/mlflow.db")
    assert {run.info.run_name for run in found} == {"sweep/0", "sweep/1"}
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.slow
def test_a_tracking_server(tmp_path, monkeypatch):
    pytest.importorskip("flask")  # mlflow-skinny has no server
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""})
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health")
                break
            except OSError:
                time.sleep(0.1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        check_a_run_and_its_resumption(uri, tmp_path / "run")
    finally:
        server.terminate()
        server.wait()
