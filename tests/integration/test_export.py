"""export.py as typed on a command line."""

import pytest
from helpers import assert_two_lines, run_script, run_warm, write_image_folder


def test_output_of_an_export(finished_run, tmp_path):
    photos = write_image_folder(tmp_path / "photos (1)", {"a": 1})
    (photos / "broken.jpg").write_bytes(b"")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = tmp_path / "new" / "net=1,2.pt2"
    arguments = (f"ckpt={finished_run}/checkpoints/best.ckpt", f"path={photos}", "format=pt2")
    result = run_warm("export.py", *arguments, f"output={output}", cwd=elsewhere)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "on 1 images of" in result.stdout and result.stdout.endswith(f"{output}\n")
    assert output.is_file() and not list(elsewhere.iterdir())


@pytest.mark.slow
def test_output_of_an_onnx_export(finished_run, tmp_path):
    pytest.importorskip("onnxscript")
    ckpt = f"ckpt={finished_run}/checkpoints/best.ckpt"
    result = run_script("export.py", ckpt, f"output={tmp_path}", cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert (tmp_path / "best.onnx").is_file()


def test_a_missing_checkpoint(tmp_path):
    assert_two_lines(run_script("export.py", cwd=tmp_path), "ckpt= is missing")
