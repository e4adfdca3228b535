"""Training speed of this project against what a user would otherwise write, side by side in one run.

    python benchmarks/training_speed.py lenet-4 --data FOLDER [--rounds 5] [--steps 1000]

Works: `lenet-B` is GarmentClassifier on Fashion-MNIST at batch B (FOLDER as for data=fashion_mnist), `simple_v3-B` is simple_v3 on
CIFAR-10 with random crop and flip (FOLDER as for data=cifar10), `dog_cat-B` is the head of a frozen EfficientNet-Lite0 on photos at
224x224 (FOLDER with the folders cat and dog; the second epoch of the project, decoding by one worker for the others). Contenders,
each in a process of its own because importing lightning slows plain torch, taking turns round by round, with the same number of
threads:

    tutorial    the tutorial's loop as it is printed: torchvision data set, PIL transforms, DataLoader in this process
    lightning   plain Lightning: the same DataLoader, accuracy as a metric and self.log of two values each step
    project     python train.py with everything on: progress, metrics, loggers, checkpoints

Prints images per second (median and range over the rounds) and the median of the ratios taken within each round.
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

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = ("tutorial", "lightning", "project")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", help="lenet-4, simple_v3-128, ...")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--precision", default="32-true", help="of the project; the others run in float32")
    parser.add_argument("--override", action="append", default=[], help="for the project, such as task.channels_last=false")
    parser.add_argument("--contender", choices=CONTENDERS, help="run one of them in this process and print its figure")
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(RUN[options.contender](options)))
        return
    compare(options)


def compare(options: argparse.Namespace) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            speeds[name].append(float(done.stdout.strip().splitlines()[-1]))
    print(f"{options.work}, {options.steps} steps, {options.rounds} rounds, {platform.machine()}, {os.cpu_count()} cores")
    for name in CONTENDERS:
        values = speeds[name]
        ratios = [ours / other for ours, other in zip(speeds["project"], values, strict=True)]
        line = f"{name:<10} {statistics.median(values):>9,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})"
        if name != "project":
            line += f"   project is {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)


def work(options: argparse.Namespace):
    """(network, torchvision data set with per-picture transforms, batch size) of a piece of work."""
    import numpy as np
    from torchvision import datasets, transforms

    sys.path.insert(0, str(ROOT))
    from src.datamodules.cifar10 import read_batch
    from src.models import EfficientNetLite0, LeNet, SimpleV3

    name, _, batch = options.work.rpartition("-")
    if name == "lenet":
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
        return LeNet(1, 10, 28), datasets.FashionMNIST(options.data, train=True, transform=transform), int(batch)
    if name == "dog_cat":
        model = EfficientNetLite0(3, 2, "DEFAULT").requires_grad_(False).eval()
        model.network.classifier.requires_grad_(True)
        expects = EfficientNetLite0.pretrained_input("DEFAULT")
        transform = [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(expects["mean"], expects["std"])]
        return model, datasets.ImageFolder(options.data, transforms.Compose(transform)), int(batch)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]

    class CIFAR10(datasets.CIFAR10):  # torchvision's own pictures and transforms; its loader insists on the original files
        def __init__(self, root, transform):
            datasets.VisionDataset.__init__(self, root, transform=transform)
            parts = [read_batch(Path(root) / self.base_folder / f"data_batch_{i}") for i in range(1, 6)]
            self.data = np.concatenate([images for images, _ in parts]).transpose(0, 2, 3, 1)
            self.targets = np.concatenate([labels for _, labels in parts]).tolist()

    return SimpleV3(3, 10), CIFAR10(options.data, transforms.Compose(steps)), int(batch)


def tutorial(options: argparse.Namespace) -> float:
    import torch

    torch.manual_seed(0)
    model, data, batch = work(options)
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=int(options.work.startswith("dog_cat")))
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
    if not options.work.startswith("dog_cat"):  # a frozen backbone stays in evaluation mode
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
    import logging

    import lightning as L
    import torch
    import torchmetrics

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(0, verbose=False)
    model, data, batch = work(options)

    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model
            self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2 if options.work.startswith("dog_cat") else 10)

        def training_step(self, batch, batch_idx):
            images, labels = batch
            logits = self.model(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            self.log("train/loss", loss)
            self.log("train/acc", self.accuracy(logits, labels), prog_bar=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.001, momentum=0.9)

        def on_train_epoch_start(self):
            self.start = time.perf_counter()

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx + 1 == self.trainer.num_training_batches:
                self.seconds = time.perf_counter() - self.start

    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=int(options.work.startswith("dog_cat")))
    module = Plain()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1, limit_train_batches=options.steps, default_root_dir=folder, enable_model_summary=False, accelerator="cpu"
        )
        trainer.fit(module, loader)
    return min(trainer.num_training_batches * batch, len(data)) / module.seconds


def project(options: argparse.Namespace) -> float:
    name, _, batch = options.work.rpartition("-")
    recipes = {"lenet": "garment_fashion_mnist", "simple_v3": "simple_v3_cifar10", "dog_cat": "dog_cat_finetune"}
    epochs = 2 if name == "dog_cat" else 1
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"experiment={recipes[name]}", f"data.root={options.data}", f"data.batch_size={batch}", "test=false"]
        overrides += [f"trainer.max_epochs={epochs}"]
        overrides += [f"trainer.limit_train_batches={options.steps}", "trainer.limit_val_batches=1", "trainer.accelerator=cpu"]
        overrides += ["data/augment=crop_flip"] if name == "simple_v3" else []
        overrides += [f"trainer.precision={options.precision}", f"hydra.run.dir={folder}", *options.override]
        done = subprocess.run([sys.executable, str(ROOT / "train.py"), *overrides], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        with open(Path(folder) / "metrics.csv", newline="") as file:
            return float(list(csv.DictReader(file))[-1]["images_per_second"])


RUN = {"tutorial": tutorial, "lightning": lightning, "project": project}

if __name__ == "__main__":
    main()
