"""What the data path alone does, and what a run costs in memory and start-up.

    python benchmarks/data_path.py --cifar FOLDER [--rounds 3]

Prints, as median and range over the rounds: batches of 128 from CIFAR-10 with crop and flip and normalisation, here and with
torchvision's transforms picture by picture in the process; the time of `python train.py --cfg job`; and the peak memory of training
simple_v3 on CIFAR-10, less that of the same run on a set of a few hundred pictures, in multiples of the uint8 data; how an epoch grows
with twice the pictures; and LeNet's accuracy by either way of augmenting.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def spread(values: list[float], unit: str, digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} {unit} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def rate(loader, prepare=None, batches: int = 100) -> float:
    """Images per second over the first batches of a loader, its start left out."""
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
    from torchvision.transforms import v2

    from src.datamodules import CIFAR10DataModule, CropFlip

    data = CIFAR10DataModule(root, batch_size=128)
    data.setup("fit")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    crop_flip = CropFlip(4)

    def fast(images):
        return crop_flip(images).float().div_(255).sub_(mean).div_(std)

    images, labels = data._sets["train"]
    pictures = [v2.functional.to_pil_image(image) for image in images[:20_000]]
    transform = v2.Compose(
        [
            v2.RandomCrop(32, 4),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(data.mean, data.std),
        ]
    )

    class PerSample(torch.utils.data.Dataset):
        def __len__(self):
            return len(pictures)

        def __getitem__(self, i):
            return transform(pictures[i]), int(labels[i])

    slow = torch.utils.data.DataLoader(PerSample(), 128, shuffle=True)
    print("data path, this project:   ", spread([rate(data.train_dataloader(), fast) for _ in range(rounds)], "images/s"))
    print("data path, picture by picture:", spread([rate(slow) for _ in range(rounds)], "images/s"))


def start_up(rounds: int) -> None:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, str(ROOT / "train.py"), "--cfg", "job"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    print("train.py --cfg job:        ", spread(seconds, "s", 2))


def memory(root: Path) -> None:
    """Peak resident memory of a run in a child process: a set of digits against all of CIFAR-10."""
    peaks = []
    for data in (["data=digits", "data.channels=3"], ["data=cifar10", f"data.root={root}"]):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "train.py"), *data, "data.batch_size=64", "trainer.max_epochs=1", "test=false"]
            command += ["trainer.limit_train_batches=20", "trainer.limit_val_batches=2", f"hydra.run.dir={folder}"]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                sys.exit(child.stderr.read().decode())
            peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    size = 50_000 * 3 * 32 * 32
    beyond = peaks[1] - peaks[0]
    print(f"memory of CIFAR-10:         {beyond / 1e6:,.0f} MB beyond the digits, {beyond / size:.2f} times its uint8 data")


def train(*overrides: str) -> tuple[dict, float]:
    """results.json of a run, and the seconds of its last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "model=lenet", "data=cifar10", *overrides, f"hydra.run.dir={folder}"]
        subprocess.run(command, capture_output=True, check=True)
        with open(Path(folder) / "metrics.csv", newline="") as file:
            seconds = float(list(csv.DictReader(file))[-1]["seconds"])
        return json.loads((Path(folder) / "results.json").read_text()), seconds


def cost(root: Path, rounds: int) -> None:
    """The second epoch of LeNet with 20,000 and with 40,000 training pictures."""
    ratios = []
    for _ in range(rounds):
        few, many = (
            train(f"data.root={root}", f"data.val_size={val}", "trainer.max_epochs=2", "trainer.limit_val_batches=1", "test=false")[1]
            for val in (30_000, 10_000)
        )
        ratios.append(many / few)
    print("twice the pictures:        ", spread(ratios, "times the epoch", 2))


def same_accuracy(root: Path, seeds: int) -> None:
    """Validation accuracy of LeNet after 3 epochs with crop and flip on whole batches, and with torchvision's picture by picture."""
    per_image = (
        "+data.augment={_target_: src.datamodules.PerImage, transform: {_target_: torchvision.transforms.v2.Compose, transforms: ["
        "{_target_: torchvision.transforms.v2.RandomCrop, size: 32, padding: 4},"
        "{_target_: torchvision.transforms.v2.RandomHorizontalFlip}]}}"
    )
    for name, overrides in (("whole batches", ["data/augment=crop_flip"]), ("picture by picture", ["data/augment=none", per_image])):
        common = [f"data.root={root}", "trainer.max_epochs=3", "test=false"]
        accuracies = [100 * train(*common, *overrides, f"seed={seed}")[0]["val"]["acc"] for seed in range(seeds)]
        print(f"accuracy, {name}:", spread(accuracies, "%", 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    start_up(options.rounds)
    memory(options.cifar)
    data_path(options.cifar, options.rounds)
    cost(options.cifar, options.rounds)
    same_accuracy(options.cifar, options.rounds)


if __name__ == "__main__":
    main()
