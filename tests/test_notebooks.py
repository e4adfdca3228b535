"""The notebooks run from top to bottom, offline; git holds them without outputs."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(name: str, folder: Path, monkeypatch) -> str:
    """Run a notebook in `folder/notebooks`; returns all that it printed and showed, as text."""
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    working_folder = folder / "notebooks"
    working_folder.mkdir()
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    resources = {"metadata": {"path": str(working_folder)}}
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    return "\n".join(shown(output) for output in outputs)


def shown(output) -> str:
    """Printed text, or the kinds of data of a displayed object and its text."""
    if output.output_type == "stream":
        return output.text
    return " ".join([*output.data, output.data.get("text/plain", "")])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_in_git(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        assert str(ROOT) not in cell.source
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_by_hand(tmp_path, monkeypatch):
    text = execute("by_hand", tmp_path, monkeypatch)
    assert "61,706 parameters" in text
    assert text.count("image/png") == 3
    (run,) = (tmp_path / "runs").iterdir()
    for name in ("config.yaml", "metrics.csv", "results.json", "predictions.csv", "report.html"):
        assert (run / name).is_file()
    assert list(run.glob("tb/*/events.out.tfevents.*"))


@pytest.mark.slow
def test_explore_run(finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run, tmp_path / "runs" / "some run")
    text = execute("explore_run", tmp_path, monkeypatch)
    assert "some run" in text
    assert "of 360 images are correct" in text
    assert text.count("image/png") == 2  # curves and misclassified images


@pytest.mark.slow
def test_fine_tune_folder(tmp_path, monkeypatch):
    text = execute("fine_tune_folder", tmp_path, monkeypatch)
    assert "'train': 172, 'val': 20, 'test': 48" in text
    assert "temple" in text
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "report.html").is_file()
