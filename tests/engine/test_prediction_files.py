"""Finding the files of a prediction and writing its tables."""

import itertools
from pathlib import Path

import pytest

from src.engine.prediction_files import PredictionWriter, batches, count_files, find_files


def test_batches_are_taken_from_an_endless_iterator():
    taken = []
    names = (taken.append(i) or str(i) for i in itertools.count())
    first = list(itertools.islice(batches(names, 3), 2))
    assert first == [["0", "1", "2"], ["3", "4", "5"]] and len(taken) == 6
    assert list(batches(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_existing_files_are_not_patterns_and_patterns_match_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "x[1].jpg", "x1.jpg", "sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt", "sub/.git/c.jpg", "~",
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")

    def found(path):
        return [file for file, wanted in find_files(path) if wanted]

    assert found("x[1].jpg") == ["x[1].jpg"] and found("x[0-9].jpg") == ["x1.jpg"]
    assert found("~") == ["~"]
    assert found("sub") == ["sub/a.jpg", "sub/deep/b.jpg"] and found("su*") == found("sub")
    assert found("sub/*.txt") == ["sub/notes.txt"]
    images = ["sub/a.jpg", "sub/deep/b.jpg", "x1.jpg", "x[1].jpg"]
    assert found("**/*.jpg") == images
    assert found("sub/**") == ["sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt"]
    assert count_files("sub") == (2, 1)


def test_an_interrupted_prediction_keeps_its_rows_as_a_part(tmp_path):
    with pytest.raises(KeyboardInterrupt), PredictionWriter(tmp_path, 1) as writer:
        writer.prediction("a.jpg", [("cat", 0.75)], None)
        raise KeyboardInterrupt
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"predictions.csv.part", "predictions.jsonl.part"}
    rows = (tmp_path / "predictions.csv.part").read_text()
    assert rows == "file,class_1,probability_1\na.jpg,cat,0.750000\n"
