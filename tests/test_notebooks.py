"""The notebooks run from top to bottom, offline, in a process of their own; and git holds them without what they put out."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(name: str, folder: Path, monkeypatch) -> str:
    """Run a notebook in `folder/notebooks`; returns all that it printed and showed, as text."""
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (folder / "notebooks").mkdir()
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder / "notebooks")}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [output.text if output.output_type == "stream" else " ".join(output.data) for output in outputs]
    return "\n".join(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_in_git(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)
        assert "\t" not in cell.source and str(ROOT) not in cell.source


@pytest.mark.slow
def test_by_hand(tmp_path, monkeypatch):
    text = execute("by_hand", tmp_path, monkeypatch)
    assert "61,706 parameters" in text and "epoch   5/5" in text and text.count("image/png") == 3
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.csv").is_file() and list((run / "tb").rglob("events.out.tfevents.*"))


@pytest.mark.slow
def test_explore_run(finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run, tmp_path / "runs" / "some run")
    text = execute("explore_run", tmp_path, monkeypatch)
    assert "some run" in text and "of 360 test pictures are right" in text and "taken for" in text and "image/svg+xml" in text


@pytest.mark.slow
def test_fine_tune_folder(tmp_path, monkeypatch):
    text = execute("fine_tune_folder", tmp_path, monkeypatch)
    assert "'train': 172, 'val': 20, 'test': 48" in text and "epoch   4/4" in text and "temple" in text
