"""Small data sets in the true file formats, and a way to run the project in this process: imports cost more than the runs."""

import atexit
import gzip
import importlib.util
import multiprocessing
import os
import pickle
import runpy
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

ROOT = Path(__file__).parent.parent
torch.set_num_threads(1)  # the networks here are tiny: a second thread only waits for the first
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for the processes that tests start
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
QUICK = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2"]


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """Decoded pictures of the tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def composed(overrides: list[str], config_name: str = "config") -> DictConfig:
    """The config that a command line with these overrides composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(config_name, overrides)


def run_training(folder: Path, *overrides: str) -> dict:
    """`python train.py ...` in this process; returns the content of results.json."""
    from src.training import train

    return train(composed(["trainer.accelerator=cpu", "logger=none", *overrides]), folder)


def run_script(script: str, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """An entry point in a process of its own, as a person types it."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd or ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_warm(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """`run_script` in a fork of this process, which has imported torch and lightning already: that takes longer than most runs."""
    if sys.platform != "linux":
        return run_script(script, *arguments, cwd=cwd)
    import src.evaluation
    import src.training  # noqa: F401

    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = multiprocessing.get_context("fork").Process(target=_main, args=(ROOT / script, arguments, cwd, stdout, stderr))
        process.start()
        process.join(300)
        assert process.exitcode is not None, f"{script} {arguments} does not end"
        told = [stream.seek(0) or stream.read() for stream in (stdout, stderr)]
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, *told)


def _main(path: Path, arguments: tuple[str, ...], cwd: Path, stdout: IO[str], stderr: IO[str]) -> None:
    """What Python does for `python PATH ARGUMENTS` in a folder."""
    for descriptor, stream in ((1, stdout), (2, stderr)):
        os.dup2(stream.fileno(), descriptor)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.chdir(cwd)
    sys.argv = [str(path), *arguments]
    atexit._clear()
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        atexit._run_exitfuncs()


def assert_two_lines(result: subprocess.CompletedProcess, *words: str) -> None:
    """A mistake told as it should be: two lines, exit code 2, and these words in them."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith("Error: ") and lines[1].startswith("Hint: "), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def pictures(n: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 (n, channels, size, size) of smooth random pictures."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (n, channels, 4, 4)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").round().byte().numpy()


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory) -> Path:
    """`cifar-10-batches-py` with 5 x 40 training and 30 test pictures, as the original pickles them."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        n = 30 if name == "test_batch" else 40
        labels = [k % 10 for k in range(n)]
        content = {b"batch_label": b"x", b"labels": labels, b"data": pictures(n, 3, 32, i).reshape(n, -1), b"filenames": [b"x.png"] * n}
        with open(folder / name, "wb") as file:
            pickle.dump(content, file, protocol=2)
    return root


@pytest.fixture(scope="session")
def cifar_archive(cifar_root, tmp_path_factory) -> Path:
    """The same as the archive that a person downloads by hand."""
    path = tmp_path_factory.mktemp("archive") / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(cifar_root / "cifar-10-batches-py", "cifar-10-batches-py")
    return path


@pytest.fixture(scope="session")
def fashion_root(tmp_path_factory) -> Path:
    """The four gzipped IDX files of Fashion-MNIST, in torchvision's layout, with 200 + 30 pictures."""
    root = tmp_path_factory.mktemp("fashion")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", 200), ("t10k", 30)):
        images = pictures(n, 1, 28, n)
        labels = np.arange(n, dtype=np.uint8) % 10
        write_idx(raw / f"{prefix}-images-idx3-ubyte.gz", images[:, 0])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """A uint8 array in LeCun's IDX format, gzipped."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.tobytes())


def write_folder(root: Path, counts: dict[str, int], size: int = 40, seed: int = 0) -> Path:
    """`root/<class>/NNN.jpg` with uneven sizes; returns root."""
    for k, (name, n) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures(n, 3, size, seed + k)):
            image = Image.fromarray(picture.transpose(1, 2, 0)).resize((size + 3 * i % 20, size + 5))
            image.save(folder / f"{i:03d}.jpg")
    return root


@pytest.fixture(scope="session")
def dog_cat_root(tmp_path_factory) -> Path:
    """Folders cat and dog with 30 pictures each."""
    return write_folder(tmp_path_factory.mktemp("dog_cat"), {"cat": 30, "dog": 30})


@pytest.fixture(scope="session")
def script():
    """benchmarks/reliability.py, which has the long versions and makes the hostile files."""
    spec = importlib.util.spec_from_file_location("reliability", ROOT / "benchmarks" / "reliability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """The folder of a short run on the digits with lenet, made once and shared: do not write into it."""
    folder = tmp_path_factory.mktemp("run")
    run_training(folder, "model=lenet", "trainer.max_epochs=2", "optimizer.lr=0.05")
    return folder
