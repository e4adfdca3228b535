"""Finding the files of a prediction."""

from pathlib import Path

from src.engine.prediction_files import find_files


def test_existing_files_are_not_patterns_and_patterns_match_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "x[1].jpg", "x1.jpg", "sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt", "sub/.git/c.jpg", "~",
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")

    def found(path):
        return find_files(path)[0]

    assert found("x[1].jpg") == ["x[1].jpg"] and found("x[0-9].jpg") == ["x1.jpg"]
    assert found("~") == ["~"]
    assert found("sub") == ["sub/a.jpg", "sub/deep/b.jpg"] and found("su*") == found("sub")
    assert found("sub/*.txt") == ["sub/notes.txt"]
    images = ["sub/a.jpg", "sub/deep/b.jpg", "x1.jpg", "x[1].jpg"]
    assert found("**/*.jpg") == images
    assert found("sub/**") == ["sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt"]
    assert find_files("sub")[1] == 1
