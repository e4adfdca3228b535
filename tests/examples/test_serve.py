"""examples/serve.py over HTTP on this machine: good, broken and huge files, many at once."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import ROOT
from image_files import make_image

import src
from src.models import LeNet
from src.runs.checkpoint_file import save

for package in ("fastapi", "uvicorn", "multipart"):
    pytest.importorskip(package, reason="needs the extra `serve`")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = {"_target_": "src.models.LeNet", "in_channels": 1, "num_classes": 2, "image_size": 32}
    description = {"model": model, "classes": ["cat", "dog"], "channels": 1, "image_size": 32}
    description |= {"mean": [0.5], "std": [0.5]}
    weights = LeNet(1, 2, 32).state_dict()
    path = tmp_path_factory.mktemp("serve") / "a.ckpt"
    save(
        {"state_dict": {f"model.{k}": v for k, v in weights.items()}, "description": description},
        path,
    )
    return path


@pytest.fixture(scope="module")
def url(checkpoint):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "examples.serve:app", "--port", str(port)]
    env = os.environ | {"CKPT": str(checkpoint), "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def post(url: str, content: bytes) -> tuple[int, str]:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body += content + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{url}/predict", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def encoded(seed: int) -> bytes:
    content = io.BytesIO()
    make_image(seed, 40).save(content, "PNG")
    return content.getvalue()


def test_50_requests_at_once_get_their_own_answers(url, checkpoint):
    net = src.load(checkpoint)
    contents = [encoded(seed) for seed in range(50)]
    contents[7] = b"broken"
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda content: post(url, content), contents))
    for i, (status, text) in enumerate(answers):
        assert status == (422 if i == 7 else 200), text
        if i != 7:
            expected = dict(zip(net.classes, net.predict(contents[i])[0].tolist(), strict=True))
            assert json.loads(text)["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_broken_and_huge_files_are_refused_and_the_server_goes_on(url):
    assert post(url, b"no image")[0] == 422
    assert post(url, encoded(0)[:60])[0] == 422
    try:
        status = post(url, bytes(21_000_000))[0]
    except urllib.error.URLError:  # the server has closed the connection before the end
        status = 413
    assert status == 413
    assert post(url, encoded(0))[0] == 200
