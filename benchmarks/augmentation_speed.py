"""Speed of augmentation at 224x224 on one core: torchvision image by image, kornia, this project.

    pip install kornia && python benchmarks/augmentation_speed.py [--rounds 5] [--write]

Batches of 64 uint8 photos, from the stored to the augmented uint8 images: images per second of
processor time, median and range over rounds in which all take turns.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
RESULTS = ROOT / "benchmarks" / "results" / "augmentation_speed.json"

import torch  # noqa: E402 - after the number of threads is set
from torchvision.transforms import v2  # noqa: E402

from src.datamodules import ColorJitter, PerImage, RandomResizedCrop  # noqa: E402
from src.datamodules.compose import device_part, loader_part  # noqa: E402
from src.runs.environment import hardware, versions  # noqa: E402

BATCH, SIZE = 64, 224
STORE_SCALES = (1.0, 1.15, 1.5, 2.0)
JITTER = (0.4, 0.4, 0.4)
Transform = Callable[[torch.Tensor], torch.Tensor]


def own(augment: Any) -> Transform:
    """As a run applies it: in the loader with a seed for each image, or on the batch."""
    per_image = loader_part(augment)
    if per_image is not None:
        return lambda images: per_image(images, range(len(images)))
    return device_part(augment)


def kornia(transform: Any) -> Transform:
    return lambda images: transform(images.float() / 255).mul_(255).round_().to(torch.uint8)


def contenders() -> dict[str, tuple[Transform, int]]:
    """Name -> transform of a batch, and the side of its images."""
    import kornia.augmentation as k

    found: dict[str, tuple[Transform, int]] = {}
    for scale in STORE_SCALES:
        side = round(SIZE * scale)
        name = f"random resized crop and flip from {side}"
        theirs = v2.Compose([v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip()])
        both = torch.nn.Sequential(k.RandomResizedCrop((SIZE, SIZE)), k.RandomHorizontalFlip())
        found[f"{name}: own"] = own(RandomResizedCrop(store_scale=scale)), side
        found[f"{name}: torchvision"] = own(PerImage(theirs)), side
        found[f"{name}: kornia, no antialiasing"] = kornia(both), side
    pairs = {
        "colour jitter without hue": (v2.ColorJitter(*JITTER), k.ColorJitter(*JITTER, p=1.0)),
        "random erasing of a quarter": (v2.RandomErasing(0.25), k.RandomErasing(p=0.25)),
        "TrivialAugment": (v2.TrivialAugmentWide(), k.auto.TrivialAugment()),
    }
    found["colour jitter without hue: own"] = own(ColorJitter(*JITTER)), SIZE
    found["AugMix: torchvision"] = own(PerImage(v2.AugMix())), SIZE
    for name, (theirs, other) in pairs.items():
        found[f"{name}: torchvision"] = own(PerImage(theirs)), SIZE
        found[f"{name}: kornia"] = kornia(other), SIZE
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, (transform, side) in contenders().items():
            images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
            transform(images[:4])
            started = time.process_time()
            transform(images)
            rows.setdefault(name, []).append(BATCH / (time.process_time() - started))
    for name, values in rows.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name}: {middle:,.0f} images/s ({low:,.0f} to {high:,.0f})")
    if args.write:
        content = {"date": date.today().isoformat(), "hardware": hardware(), "versions": versions()}
        RESULTS.write_text(json.dumps(content | {"images_per_second": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
