"""How many swapped labels are in the first tenth of the list of experiment=label_check.

    python benchmarks/label_check.py FOLDER [--seeds 5] [--fraction 0.05] [--keep FOLDER]

FOLDER holds one folder for each class. In each round a fraction of the images is linked into the
folder of another class, and a run of the experiment lists them.
"""

import argparse
import csv
import os
import random
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

from helpers import composed  # noqa: E402 - after the number of threads is set

from src.datamodules import ImageFolderDataModule  # noqa: E402
from src.engine.train import train  # noqa: E402


def link_with_swapped_labels(source: Path, folder: Path, fraction: float, seed: int) -> set[str]:
    """Link the images into class folders; returns the names of those that are in a wrong one."""
    data = ImageFolderDataModule(source)
    files = data.files("train")[0]
    draw = random.Random(seed)
    swapped = set(draw.sample(range(len(files)), round(fraction * len(files))))
    names = set()
    for i, file in enumerate(files):
        label = data.classes[data.files("train")[1][i]]
        if i in swapped:
            label = draw.choice([name for name in data.classes if name != label])
        name = f"{label}/{i:06}{file.suffix}"
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(file.resolve())
        if i in swapped:
            names.add(name)
    return names


def recall(source: Path, fraction: float, seed: int, scratch: Path) -> tuple[float, float]:
    """Fractions of the swapped images in the first tenth and the first 5 % of the list."""
    swapped = link_with_swapped_labels(source, scratch / "images", fraction, seed)
    settings = ["experiment=label_check", f"data.root={scratch / 'images'}", "logger=none"]
    cache = f"data.cache_dir={scratch / 'cache'}"
    quick = ["~callbacks.report", "trainer.accelerator=cpu", "test=false"]
    train(composed([*settings, cache, *quick]), scratch / "run")
    with open(scratch / "run" / "suspect_labels.csv", encoding="utf-8", newline="") as file:
        images = [row["image"] for row in csv.DictReader(file)]
    first, many = (swapped & set(images[:n]) for n in (len(images) // 10, len(swapped)))
    return len(first) / len(swapped), len(many) / len(swapped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--keep", type=Path, help="a new folder for the runs")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(args.seeds):
            place = (args.keep or Path(scratch)) / str(seed)
            first, many = recall(args.folder, args.fraction, seed, place)
            found.append((first, many))
            print(f"seed {seed}: first tenth {first:.3f}, as many as swapped {many:.3f}")
    columns = zip(*found, strict=True)
    for name, values in zip(("first tenth", "as many as swapped"), columns, strict=True):
        print(f"{name}: mean {statistics.mean(values):.3f}, lowest {min(values):.3f}")


if __name__ == "__main__":
    main()
