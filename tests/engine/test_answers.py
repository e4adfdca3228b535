"""predict.py: thresholds by hand, and copies of images sorted by answer."""

from pathlib import Path

import pytest
from image_files import write_readable
from predict_helpers import read_rows, run_predict

from src.engine.answers import SortedCopies
from src.engine.prediction_files import Prediction
from src.errors import UserError


def test_a_threshold_by_hand_sorts_what_is_unsure(lenet_checkpoint, tmp_path):
    photos, target = tmp_path / "in", tmp_path / "sorted" / "a=1,(b)"
    write_readable(photos, 12)
    (photos / "b.jpg").write_bytes(b"broken")
    run_predict(lenet_checkpoint, photos, tmp_path / "first")
    values = [float(r["probability_1"]) for r in read_rows(tmp_path / "first/predictions.csv")]
    middle = sorted(values)[6] - 1e-6
    results = run_predict(
        lenet_checkpoint, photos, tmp_path / "out", threshold=middle, sort_to=f"'{target}'"
    )
    rows = read_rows(tmp_path / "out/predictions.csv")
    assert results["answers"]["unsure"] == 6 and results["threshold"] == middle
    assert {row["distance"] for row in rows} == {""}
    expected = {f"{row['answer']}/{Path(row['file']).name}" for row in rows}
    copies = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert copies == expected and len(copies) == 12
    assert all(Path(row["file"]).is_file() for row in rows)
    with pytest.raises(UserError, match="is not empty"):
        run_predict(lenet_checkpoint, photos, tmp_path / "again", sort_to=f"'{target}'")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"coverage": "many"}, "coverage=many"),
        ({"threshold": 0.5, "coverage": 0.5}, "both"),
        ({"coverage": 0.9}, "evaluate.py"),
        ({"unknown": "true"}, "evaluate.py"),
    ],
)
def test_settings_that_cannot_work(settings, words, lenet_checkpoint, tmp_path):
    write_readable(tmp_path / "in", 1)
    with pytest.raises(UserError, match=words):
        run_predict(lenet_checkpoint, tmp_path / "in", tmp_path / "out", **settings)


def test_copies_never_overwrite_and_stay_in_their_folder(tmp_path):
    classes = ["../up", "a/b", "a_b", "..", "", "x" * 300, "X" * 300, "猫"]
    files = []
    for name in ("one", "two", "three"):
        files.append(tmp_path / name / "a.jpg")
        files[-1].parent.mkdir()
        files[-1].write_text(name)
    copies = SortedCopies(str(tmp_path / "sorted"), classes)
    for name in classes:
        copies.copy([Prediction(str(file), [(name, 1.0)]) for file in files])
    folders = list((tmp_path / "sorted").iterdir())
    assert len(folders) == len(classes)
    for folder in folders:
        content = {path.name: path.read_text() for path in folder.iterdir()}
        assert content == {"a.jpg": "one", "a_2.jpg": "two", "a_3.jpg": "three"}
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "three", "sorted"}
