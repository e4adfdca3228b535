"""Training speed of this project compared with the tutorials' loop and with plain Lightning.

    python benchmarks/training_speed.py lenet-4 --data FOLDER [--rounds 5] [--steps 1000]

Work: `lenet-B` is GarmentClassifier on Fashion-MNIST at batch size B (FOLDER as for
data=fashion_mnist), `simple_v3-B` is simple_v3 on CIFAR-10 with random crop and flip (FOLDER as for
data=cifar10), `dog_cat-B` is the head of a frozen EfficientNet-Lite0 on photos at 224x224 (FOLDER
with the folders cat and dog; the second epoch of the project, decoding by one worker for the
others). The contenders take turns, each in a process of its own, with the same number of threads:

    tutorial    the tutorial's loop as it is printed: torchvision data set, PIL transforms,
                DataLoader in this process
    lightning   plain Lightning: the same DataLoader, accuracy as a metric, self.log of two values
                in each step
    project     python train.py with everything on: progress, metrics, loggers, checkpoints

Prints images per second (median and range over the rounds) and the median of the ratios taken
within each round.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
RECIPES = {
    "lenet": "garment_fashion_mnist",
    "simple_v3": "simple_v3_cifar10",
    "dog_cat": "dog_cat_finetune",
}


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("work", help="lenet-4, simple_v3-128, ...")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--precision", default="32-true", help="of the project only")
    parser.add_argument("--override", action="append", default=[], help="a setting of the project")
    parser.add_argument("--contender", choices=CONTENDERS, help="run it in this process")
    options = parser.parse_args()
    options.name, _, batch_size = options.work.rpartition("-")
    options.batch_size = int(batch_size)
    if options.contender:
        print(json.dumps(CONTENDERS[options.contender](options)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run the contenders in turns and print their speeds and ratios."""
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            speeds[name].append(float(done.stdout.strip().splitlines()[-1]))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{options.work}, {options.steps} steps, {options.rounds} rounds, {machine}")
    for name, values in speeds.items():
        spread = f"({min(values):,.0f} to {max(values):,.0f})"
        line = f"{name:<10} {statistics.median(values):>9,.0f} images/s {spread}"
        if name != "project":
            ratios = [own / other for own, other in zip(speeds["project"], values, strict=True)]
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            line += f"   project is {statistics.median(ratios):.2f}x {spread}"
        print(line)


def prepare(options: argparse.Namespace) -> "tuple[torch.nn.Module, torch.utils.data.DataLoader]":
    """The network and the loader of the tutorials, with transforms that work per image."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    sys.path.insert(0, str(ROOT))
    from src.datamodules.original_files import read_cifar
    from src.models import EfficientNetLite0, LeNet, SimpleV3

    class CIFAR10(datasets.CIFAR10):
        """torchvision's images and transforms on any files: it insists on the official ones."""

        def __init__(self, root: Path, transform: transforms.Compose):
            datasets.VisionDataset.__init__(self, root, transform=transform)
            images, labels, _ = read_cifar(datasets.CIFAR10, root, train=True)
            self.data = images.permute(0, 2, 3, 1).numpy()
            self.targets = labels.tolist()

    if options.name == "lenet":
        model = LeNet(1, 10, 28)
        steps = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
        transform = transforms.Compose(steps)
        data = datasets.FashionMNIST(options.data, train=True, transform=transform)
    elif options.name == "simple_v3":
        model = SimpleV3(3, 10)
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        transform = transforms.Compose([*steps, transforms.ToTensor()])
        data = CIFAR10(options.data, transform)
    else:
        model = EfficientNetLite0(3, 2, "DEFAULT").requires_grad_(False).eval()
        model.network.classifier.requires_grad_(True)
        expected = EfficientNetLite0.pretrained_input("DEFAULT")
        normalize = transforms.Normalize(expected["mean"], expected["std"])
        steps = [transforms.Resize((224, 224)), transforms.ToTensor(), normalize]
        data = datasets.ImageFolder(options.data, transforms.Compose(steps))
    workers = int(options.name == "dog_cat")
    return model, DataLoader(data, options.batch_size, shuffle=True, num_workers=workers)


def tutorial(options: argparse.Namespace) -> float:
    """Images per second of the tutorial's loop."""
    import torch

    torch.manual_seed(0)
    model, loader = prepare(options)
    loss_fn = torch.nn.CrossEntropyLoss()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    if options.name != "dog_cat":  # a frozen backbone stays in evaluation mode
        model.train(True)
    running_loss = 0.0
    images = 0
    start = time.perf_counter()
    for i, (inputs, labels) in enumerate(loader):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_fn(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        images += len(labels)
        if i + 1 == options.steps:
            break
    return images / (time.perf_counter() - start)


def lightning(options: argparse.Namespace) -> float:
    """Images per second of plain Lightning."""
    import logging

    import lightning as L
    import torch
    import torchmetrics

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(0, verbose=False)
    model, loader = prepare(options)
    num_classes = 2 if options.name == "dog_cat" else 10

    class Plain(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=num_classes)

        def training_step(self, batch, batch_idx):
            images, labels = batch
            logits = self.model(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            self.log("train/loss", loss)
            self.log("train/acc", self.accuracy(logits, labels), prog_bar=True)
            return loss

        def configure_optimizers(self):
            trained = [p for p in self.parameters() if p.requires_grad]
            return torch.optim.SGD(trained, lr=0.001, momentum=0.9)

        def on_train_epoch_start(self):
            self.start = time.perf_counter()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx + 1 == self.trainer.num_training_batches:
                self.seconds = time.perf_counter() - self.start

    module = Plain()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1,
            limit_train_batches=options.steps,
            default_root_dir=folder,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(module, loader)
    images = min(trainer.num_training_batches * options.batch_size, len(loader.dataset))
    return images / module.seconds


def project(options: argparse.Namespace) -> float:
    """Images per second of `python train.py`, as metrics.csv reports them."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"experiment={RECIPES[options.name]}",
            f"data.root={options.data}",
            f"data.batch_size={options.batch_size}",
            "test=false",
            f"trainer.max_epochs={2 if options.name == 'dog_cat' else 1}",
            f"trainer.limit_train_batches={options.steps}",
            "trainer.limit_val_batches=1",
            "trainer.accelerator=cpu",
            f"trainer.precision={options.precision}",
            f"hydra.run.dir={folder}",
            *(["data/augment=crop_flip"] if options.name == "simple_v3" else []),
            *options.override,
        ]
        command = [sys.executable, str(ROOT / "train.py"), *overrides]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        with open(Path(folder) / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    return float(rows[-1]["images_per_second"])


CONTENDERS = {"tutorial": tutorial, "lightning": lightning, "project": project}

if __name__ == "__main__":
    main()
