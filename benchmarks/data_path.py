"""Speed of the data path, start-up time and memory.

    python benchmarks/data_path.py --cifar FOLDER [--rounds 3]

Prints, as median and range over the rounds: batches of 128 from CIFAR-10 with crop, flip and
normalization, here and with torchvision's transforms per image; the time of
`python train.py --cfg job`; the peak memory of training on CIFAR-10, less that on the digits, in
multiples of the uint8 data; an epoch with twice the images; and the accuracy of LeNet with both
ways of augmentation.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CIFAR_BYTES = 50_000 * 3 * 32 * 32
PER_IMAGE = (
    "+data.augment={_target_: src.datamodules.PerImage, transform: "
    "{_target_: torchvision.transforms.v2.Compose, transforms: ["
    "{_target_: torchvision.transforms.v2.RandomCrop, size: 32, padding: 4},"
    "{_target_: torchvision.transforms.v2.RandomHorizontalFlip}]}}"
)


def median_and_range(values: list[float], unit: str, digits: int = 0) -> str:
    low, middle, high = (
        f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} {unit} ({low} to {high})"


def images_per_second(
    loader: Iterable, prepare: Callable[[Any], Any] | None = None, batches: int = 100
) -> float:
    """The speed over the first batches of a loader, without its start."""
    iterator = iter(loader)
    next(iterator)
    images = 0
    start = time.perf_counter()
    for _ in range(batches):
        batch, labels = next(iterator)
        if prepare is not None:
            prepare(batch)
        images += len(labels)
    return images / (time.perf_counter() - start)


def data_path(root: Path, rounds: int) -> None:
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    from src.datamodules import CIFAR10DataModule, CropFlip

    data = CIFAR10DataModule(root=root, batch_size=128)
    data.setup("fit")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    crop_flip = CropFlip(4)

    def augment_and_normalize(images: torch.Tensor) -> torch.Tensor:
        return crop_flip(images).float().div_(255).sub_(mean).div_(std)

    positions = torch.arange(20_000)
    labels = data.labels("train")
    pil_images = [v2.functional.to_pil_image(image) for image in data.images("train", positions)]
    transform = v2.Compose(
        [
            v2.RandomCrop(32, 4),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
        ]
    )

    class PerSample(Dataset):
        def __len__(self) -> int:
            return len(pil_images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return transform(pil_images[index]), int(labels[index])

    own = [images_per_second(data.train_dataloader(), augment_and_normalize) for _ in range(rounds)]
    loader = DataLoader(PerSample(), 128, shuffle=True)
    other = [images_per_second(loader) for _ in range(rounds)]
    print("data path, this project:", median_and_range(own, "images/s"))
    print("data path, per image:   ", median_and_range(other, "images/s"))


def start_up(rounds: int) -> None:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "train.py"), "--cfg", "job"]
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    print("train.py --cfg job:     ", median_and_range(seconds, "s", 2))


def peak_memory(*overrides: str) -> int:
    """Bytes that a short training takes at most, in a process of its own."""
    short = ["data.batch_size=64", "trainer.max_epochs=1", "test=false"]
    short += ["trainer.limit_train_batches=20", "trainer.limit_val_batches=2"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *overrides, *short]
        command.append(f"hydra.run.dir={folder}")
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(child.stderr.read().decode())
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(root: Path) -> None:
    digits = peak_memory("data=digits", "data.channels=3")
    cifar = peak_memory("data=cifar10", f"data.root={root}")
    more = cifar - digits
    factor = more / CIFAR_BYTES
    print(f"memory of CIFAR-10:      {more / 1e6:,.0f} MB, {factor:.2f} times its uint8 data")


def train(*overrides: str) -> tuple[dict, float]:
    """results.json of a run of LeNet, and the seconds of its last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "model=lenet", "data=cifar10"]
        command += [*overrides, "test=false", f"hydra.run.dir={folder}"]
        subprocess.run(command, capture_output=True, check=True)
        with open(Path(folder) / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return json.loads((Path(folder) / "results.json").read_text()), float(rows[-1]["seconds"])


def twice_the_images(root: Path, rounds: int) -> None:
    """The second epoch with 40,000 training images, in epochs with 20,000."""
    ratios = []
    short = [f"data.root={root}", "trainer.max_epochs=2", "trainer.limit_val_batches=1"]
    for _ in range(rounds):
        _, few = train(*short, "data.val_size=30000")
        _, many = train(*short, "data.val_size=10000")
        ratios.append(many / few)
    print("twice the images:       ", median_and_range(ratios, "times the epoch", 2))


def accuracy(root: Path, seeds: int) -> None:
    """Validation accuracy of LeNet after 3 epochs."""
    ways = {
        "whole batches": ["data/augment=crop_flip"],
        "per image": ["data/augment=none", PER_IMAGE],
    }
    for name, overrides in ways.items():
        accuracies = []
        for seed in range(seeds):
            common = [f"data.root={root}", "trainer.max_epochs=3", f"seed={seed}"]
            results, _ = train(*common, *overrides)
            accuracies.append(100 * results["val"]["acc"])
        print(f"accuracy, {name}:", median_and_range(accuracies, "%", 2))


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    start_up(options.rounds)
    memory(options.cifar)
    data_path(options.cifar, options.rounds)
    twice_the_images(options.cifar, options.rounds)
    accuracy(options.cifar, options.rounds)


if __name__ == "__main__":
    main()
