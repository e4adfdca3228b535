"""Shared test helpers: small data sets in their true file formats, and ways to run the project."""

import atexit
import gzip
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import runpy
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

ROOT = Path(__file__).parent.parent
QUICK = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=2",
]
TIMEOUT = 300  # seconds that a command may take

# Running the project


def composed(overrides: list[str], config_name: str = "config") -> DictConfig:
    """The config that a command line with these overrides composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(config_name, overrides)


def run_training(folder: Path, *overrides: str) -> dict:
    """`python train.py ...` in this process; returns the content of results.json."""
    from src.engine.train import train

    return train(composed(["trainer.accelerator=cpu", "logger=none", *overrides]), folder)


def run_script(
    script: str, *arguments: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess:
    """Run an entry point in a process of its own, as typed on a command line."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=cwd or ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def run_warm(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """`run_script` in a fork of this process, which saves the import of torch and lightning."""
    if sys.platform != "linux":
        return run_script(script, *arguments, cwd=cwd)
    return WarmProcess(script, *arguments, cwd=cwd).wait()


class WarmProcess:
    """An entry point that runs in a fork of this process, see `run_warm`.

    Args:
        prepare: what the fork calls first.
    """

    def __init__(
        self, script: str, *arguments: str, cwd: Path, prepare: Callable[[], None] | None = None
    ):
        import src.engine.evaluate
        import src.engine.train  # noqa: F401

        self.arguments = [script, *arguments]
        self.output = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.process = multiprocessing.get_context("fork").Process(
            target=_run_main, args=(ROOT / script, arguments, cwd, *self.output, prepare)
        )
        self.process.start()

    def wait(self) -> subprocess.CompletedProcess:
        """The ended process."""
        self.process.join(TIMEOUT)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"{self.arguments} does not end")
        texts = []
        for file in self.output:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return subprocess.CompletedProcess(self.arguments, code, *texts)


def _run_main(
    path: Path,
    arguments: tuple[str, ...],
    cwd: Path,
    stdout: IO[str],
    stderr: IO[str],
    prepare: Callable[[], None] | None,
) -> None:
    """Do what Python does for `python PATH ARGUMENTS` in a folder."""
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1)
    sys.stderr = open(2, "w", buffering=1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.chdir(cwd)
    sys.argv = [str(path), *arguments]
    atexit._clear()
    multiprocessing.forkserver._forkserver.__init__()  # that of the tests is no child of the fork
    if prepare is not None:
        prepare()
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        atexit._run_exitfuncs()


def use_as_worker(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs of sweeps and searches run a script that knows its `folder` in place of a training.

    It sees the environment of its job, and writes what a run writes.
    """
    start = "import os\nos.setsid()\nos.environ.clear()\nos.environ.update(environment)\n"
    body = textwrap.indent(start + script, "    ")
    source = f"def run_job(folder, environment, log):\n{body}"
    (tmp_path / "fake_worker.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fake_worker", raising=False)
    monkeypatch.setattr("src.sweeps.pool.run_job", importlib.import_module("fake_worker").run_job)
    for module in ("launcher", "search"):  # a server without what only a training needs
        monkeypatch.setattr(f"src.sweeps.{module}.start_server", lambda: None)


def assert_two_lines(result: subprocess.CompletedProcess, *words: str) -> None:
    """Assert a settings error: two lines, exit code 2, and these words in them."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("Error: ") and lines[1].startswith("Hint: "), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


# Making data


def random_images(n: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, uint8 (n, channels, size, size)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (n, channels, 4, 4)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return fine.round().byte().numpy()


def write_cifar10(root: Path, per_batch: int = 40, test: int = 30) -> Path:
    """Write `root/cifar-10-batches-py` in the original pickle format; returns root."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    for i, name in enumerate(names):
        n = test if name == "test_batch" else per_batch
        content = {
            b"batch_label": b"x",
            b"labels": [k % 10 for k in range(n)],
            b"data": random_images(n, 3, 32, i).reshape(n, -1),
            b"filenames": [b"x.png"] * n,
        }
        with open(folder / name, "wb") as file:
            pickle.dump(content, file, protocol=2)
    return root


def write_cifar10_archive(path: Path, cifar_root: Path) -> Path:
    """Pack `cifar_root/cifar-10-batches-py` as the archive of the original page; returns path."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(cifar_root / "cifar-10-batches-py", "cifar-10-batches-py")
    return path


def write_fashion_mnist(root: Path, train: int = 200, test: int = 30) -> Path:
    """Write the four gzipped IDX files of Fashion-MNIST in torchvision's layout; returns root."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = random_images(n, 1, 28, n)
        labels = np.arange(n, dtype=np.uint8) % 10
        write_idx(raw / f"{prefix}-images-idx3-ubyte.gz", images[:, 0])
        write_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return root


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array in LeCun's IDX format, gzipped where the name ends in .gz."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.tobytes())


def write_image_folder(root: Path, counts: dict[str, int], size: int = 40, seed: int = 0) -> Path:
    """Write `root/<class>/NNN.jpg`, images of uneven sizes; returns root."""
    for k, (name, n) in enumerate(counts.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, pixels in enumerate(random_images(n, 3, size, seed + k)):
            image = Image.fromarray(pixels.transpose(1, 2, 0))
            image.resize((size + 3 * i % 20, size + 5)).save(folder / f"{i:03d}.jpg")
    return root
