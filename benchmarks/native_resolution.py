"""Random resized crops from photos at native resolution, or from photos squashed once.

    python benchmarks/native_resolution.py FOLDER [--seeds 0 1 2 3 4] [--test 500] [--write NAME]

FOLDER holds `cat` and `dog`. A seed takes 25 photos of each class, the seed of the run too; two of
the 50 are the validation, which chooses nothing. The weights after the last epoch are tested on
`--test` of the other photos, with the short side resized and the centre cropped (`crop`), the same
for all; those trained on squashed photos also on squashed photos (`stretch`).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

import numpy as np  # noqa: E402 - after the number of threads is set
import torch  # noqa: E402
from helpers import composed  # noqa: E402

import src  # noqa: E402
from src.datamodules import ImageFolderDataModule  # noqa: E402
from src.engine.train import train  # noqa: E402
from src.runs.environment import hardware, versions  # noqa: E402

SIZE = 25
CROP = "data/augment=random_resized_crop"
VARIANTS = {
    "squashed, no augmentation": ["data.resize=stretch"],
    "squashed, random resized crop": ["data.resize=stretch", CROP, "data.augment.store_scale=1"],
    "native, random resized crop": ["data.resize=crop", CROP, "data.augment.store_scale=1.5"],
}
RECIPE = [
    "experiment=dog_cat_finetune", "data.batch_size=16", "data.val_size=2", "optimizer.lr=0.01",
    "trainer.max_epochs=12", "logger=none", "~callbacks.report", "trainer.accelerator=cpu",
    "test=false",
]  # fmt: skip


def draw(labels: torch.Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the drawn photos, `SIZE` of each class, and of all others in random order."""
    random = np.random.default_rng([SIZE, seed])
    by_class = [np.flatnonzero(labels == label) for label in (0, 1)]
    drawn = np.concatenate([random.permutation(found)[:SIZE] for found in by_class])
    return drawn, random.permutation(np.setdiff1d(np.arange(len(labels)), drawn))


def accuracy(run: Path, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Of the last weights of a run, on uint8 images (N, C, H, W)."""
    network = src.load(run / "checkpoints" / "last.ckpt").eval()
    network = network.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = torch.cat([network(part).argmax(1) for part in images.split(16)])
    return float((found == labels).float().mean())


def measure(folder: Path, seed: int, test: int) -> dict[str, dict[str, float]]:
    """Accuracies of all variants, frozen and not, for one draw."""
    views = {}
    for resize in ("crop", "stretch"):
        data = ImageFolderDataModule(root=folder, image_size=224, resize=resize)
        images, labels = data.load("train")
        views[resize] = images
    files, _ = data.files("train")
    drawn, others = draw(labels, seed)
    others = others[:test]
    rows: dict[str, dict[str, float]] = {}
    for frozen in (True, False):
        for name, settings in VARIANTS.items():
            with tempfile.TemporaryDirectory() as scratch:
                for i in drawn:
                    target = Path(scratch) / "photos" / files[i].parent.name
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copy(files[i], target)
                run = Path(scratch) / "run"
                chosen = [f"data.root={scratch}/photos", f"seed={seed}", *settings]
                chosen.append(f"callbacks.freeze_backbone.enabled={str(frozen).lower()}")
                started = time.monotonic()
                train(composed([*RECIPE, *chosen]), run)
                seconds = time.monotonic() - started
                own = settings[0].partition("=")[2]
                row = {
                    view: accuracy(run, views[view][others], labels[others])
                    for view in sorted({"crop", own})
                }
            key = f"{'frozen' if frozen else 'whole network'}; {name}"
            rows[key] = row
            print(f"seed {seed}, {key}, {seconds:.0f} s: {row}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--test", type=int, default=500, help="number of photos")
    parser.add_argument("--write", metavar="NAME", help="write benchmarks/results/NAME.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    content: dict[str, Any] = {"date": date.today().isoformat(), "hardware": hardware()}
    content |= {"versions": versions(), "recipe": RECIPE, "test": args.test, "seeds": {}}
    for seed in args.seeds:
        content["seeds"][seed] = measure(args.folder, seed, args.test)
        if args.write:
            target = ROOT / "benchmarks" / "results" / f"{args.write}.json"
            target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
