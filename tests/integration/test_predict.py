"""predict.py as typed on a command line."""

import csv
import shutil

from helpers import assert_two_lines, run_script, run_warm, write_image_folder


def test_unreadable_files_give_exit_code_1(finished_run, tmp_path):
    """From another folder, with the checkpoint moved to a third."""
    moved = tmp_path / "a b=1,(c) 猫" / "moved.ckpt"
    moved.parent.mkdir()
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", moved)
    photos = write_image_folder(tmp_path / "photos [x]=1,(2) 猫", {"a": 3})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = (f"ckpt={moved}", f"path={photos}", "hydra.run.dir=out")
    result = run_warm("predict.py", *arguments, cwd=elsewhere)
    assert result.returncode == 0, result.stderr
    (photos / "empty.jpg").write_bytes(b"")
    result = run_warm("predict.py", *arguments, cwd=elsewhere)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "Could not read 1:" in result.stdout
    with open(elsewhere / "out" / "predictions.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_missing_settings_are_reported_without_importing_torch(tmp_path):
    result = run_script("predict.py", "ckpt=x", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 2 and " torch" not in result.stderr
    assert "Error: path= is missing." in result.stderr
    result = run_script("predict.py", "top_kk=3", cwd=tmp_path)
    assert_two_lines(result, "top_kk", "Did you mean top_k?")
