"""Fixtures for tests of whole runs."""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that nothing may change; time and memory are measured as well."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("keep")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield folder
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1_000_000
    assert os.listdir(folder) == ["precious"] and (folder / "precious").read_text() == "keep"
    assert not (tmp_path / "ran").exists()
