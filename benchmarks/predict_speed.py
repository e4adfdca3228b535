# ruff: noqa: E402  (the project is imported from its folder, installed or not)
"""Speed of predict.py on a CPU.

    python benchmarks/predict_speed.py --ckpt runs/NAME --images FOLDER [--files 100] [--rounds 5]

In every round the contenders take turns on the same files: predict.py as it is, predict.py with the
network exported before (ckpt=best.onnx), one file after the other with `net.predict`, and the
earlier way of predict.py (batches of 64; the workers decode, the network has all threads). Prints
images per second and the ratios of each round to the earlier way, as median and range. Decoding and
network alone, in one thread, show what remains to be gained.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader

import src
from src.datamodules.decode import decode
from src.engine.export_checks import random_images
from src.engine.export_files import describe
from src.engine.export_formats import write_onnx
from src.engine.predict import predict
from src.engine.prediction_files import ImageFiles, find_files
from src.inference import Classifier


def earlier(net: Classifier, files: list[str]) -> None:
    """The loop of predict.py before this benchmark existed."""
    batches = [files[start : start + 64] for start in range(0, len(files), 64)]
    workers = min(os.cpu_count() or 1, 8)
    loader = DataLoader(ImageFiles(net), sampler=batches, batch_size=None, num_workers=workers)
    with torch.inference_mode():
        for batch in loader:
            net(batch.images).softmax(1).tolist()


def one_by_one(net: Classifier, files: list[str]) -> None:
    for file in files:
        net.predict(file).tolist()


def through_predict(ckpt: str, files: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for number, file in enumerate(files):
            (images / f"{number}.jpg").symlink_to(os.path.abspath(file))
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("predict", ["device=cpu"])
        cfg.ckpt, cfg.path = ckpt, str(images)
        predict(cfg, Path(folder, "run"))


def alone(net: Classifier, files: list[str]) -> None:
    """Decoding and the network, each in one thread."""
    start = time.perf_counter()
    images = torch.stack([torch.from_numpy(decode(file, net.image_size)) for file in files])
    print(f"decoding alone, one thread: {len(files) / (time.perf_counter() - start):.1f} images/s")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for size in (1, 4, 16, 64):
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in images.split(size):
                net(batch)
        speed = len(files) / (time.perf_counter() - start)
        print(f"network alone, one thread, batch {size:2}: {speed:.1f} images/s", flush=True)
    torch.set_num_threads(threads)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = find_files(options.images)[0][: options.files]
    net = src.load(options.ckpt)
    folder = tempfile.TemporaryDirectory()
    exported = Path(folder.name, "network.onnx")
    write_onnx(net, random_images(net, 2), exported, describe(net, Path(options.ckpt)))
    contenders: dict[str, Callable[[], None]] = {
        "earlier": lambda: earlier(net, files),
        "predict.py": lambda: through_predict(options.ckpt, files),
        "onnx": lambda: through_predict(str(exported), files),
        "one by one": lambda: one_by_one(net, files),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            speeds[name].append(len(files) / (time.perf_counter() - start))
            print(f"{name}: {speeds[name][-1]:.1f} images/s", flush=True)
    for name, values in speeds.items():
        ratios = [value / base for value, base in zip(values, speeds["earlier"], strict=True)]
        print(
            f"{name:10}  {statistics.median(values):6.1f} images/s "
            f"({min(values):.1f} to {max(values):.1f}), {statistics.median(ratios):.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f}), n={len(values)}"
        )
    alone(net, files)


if __name__ == "__main__":
    main()
