"""Accuracy with few photos: the recipe few_shot, a plain regression, and dog_cat_finetune.

    python benchmarks/few_shot.py FOLDER [--draws 10] [--sizes 5 10 25] [--write]

FOLDER holds `cat` and `dog`. A draw takes some photos of each class; all others are the test. The
recipes train on copies of the drawn photos as `train.py` does. The features of all photos are
computed once, and the heads of the checkpoints are applied to them: `--verify` also lets a run of
few_shot test its own checkpoint on the images of one draw of each size.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
RESULTS = ROOT / "benchmarks" / "results" / "few_shot.json"

import numpy as np  # noqa: E402 - after the number of threads is set
import torch  # noqa: E402
from helpers import composed  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

from src.datamodules import ImageFolderDataModule  # noqa: E402
from src.engine.train import train  # noqa: E402
from src.models import EfficientNetLite0  # noqa: E402
from src.runs.environment import hardware, versions  # noqa: E402

RECIPES = {
    "few_shot": ["experiment=few_shot"],
    "dog_cat_finetune": ["experiment=dog_cat_finetune"],
}


class Photos:
    """All photos: files, labels (N,) and features (N, 1280) of the network of both recipes."""

    def __init__(self, folder: Path):
        facts = EfficientNetLite0.pretrained_input("DEFAULT")
        size, mean, std = facts["image_size"], facts["mean"], facts["std"]
        data = ImageFolderDataModule(root=folder, image_size=size, mean=mean, std=std)
        self.files, labels = data.files("train")
        self.labels = labels.numpy()
        images, _ = data.load("train")
        network: Any = EfficientNetLite0(3, 2, weights="DEFAULT").eval().network
        rows = []
        with torch.no_grad():
            for positions in torch.arange(len(labels)).split(16):
                pixels = images.index_select(0, positions).float() / 255
                pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / std[0]
                maps = network.forward_features(pixels)
                rows.append(network.forward_head(maps, pre_logits=True))
        self.features = torch.cat(rows).double().numpy()

    def draw(self, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the drawn photos, `size` of each class, and of all others."""
        random = np.random.default_rng([size, seed])
        by_class = [np.flatnonzero(self.labels == label) for label in (0, 1)]
        drawn = np.concatenate([random.permutation(found)[:size] for found in by_class])
        return drawn, np.setdiff1d(np.arange(len(self.labels)), drawn)

    def copy(self, positions: np.ndarray, folder: Path) -> None:
        """Copy photos into class folders."""
        for i in positions:
            target = folder / self.files[i].parent.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.files[i], target)


def run_recipe(name: str, folder: Path, run: Path, *settings: str) -> dict[str, Any]:
    """Train as `train.py` does, without the report and TensorBoard."""
    quiet = ["logger=none", "~callbacks.report", "trainer.accelerator=cpu"]
    return train(composed([*RECIPES[name], f"data.root={folder}", *quiet, *settings]), run)


def head_accuracy(run: Path, features: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy of the head in best.ckpt."""
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    head = {k.rpartition(".")[2]: v.double().numpy() for k, v in state.items() if "classifier" in k}
    return float(((features @ head["weight"].T + head["bias"]).argmax(1) == labels).mean())


def measure(photos: Photos, size: int, seed: int, scratch: Path) -> dict[str, float]:
    """Accuracies of one draw on all photos that it has not taken."""
    drawn, others = photos.draw(size, seed)
    photos.copy(drawn, scratch / "photos")
    x, y = photos.features, photos.labels
    plain = LogisticRegression(max_iter=1000).fit(x[drawn], y[drawn])
    found = {"plain": plain.score(x[others], y[others])}
    # dog_cat_finetune chooses its best epoch by a tenth of the photos, at least one a class.
    held_out = {"few_shot": [], "dog_cat_finetune": [f"data.val_size={max(2, size // 5)}"]}
    for name, settings in held_out.items():
        result = run_recipe(name, scratch / "photos", scratch / name, *settings, f"seed={seed}")
        found[name] = head_accuracy(scratch / name, x[others], y[others])
        if name == "few_shot":
            found["few_shot_cross_validated"] = result["cross_validation"]["acc"]
    return found


def verify(photos: Photos, size: int, scratch: Path) -> dict[str, float]:
    """Draw 0 with its other photos as the folder `test`: the run tests itself on images."""
    drawn, others = photos.draw(size, 0)
    photos.copy(drawn, scratch / "photos" / "train")
    photos.copy(others, scratch / "photos" / "test")
    result = run_recipe("few_shot", scratch / "photos", scratch / "run")
    shortcut = head_accuracy(scratch / "run", photos.features[others], photos.labels[others])
    return {"size": size, "train.py": result["test"]["acc"], "shortcut": shortcut}


def draws(photos: Photos, size: int, count: int) -> Iterator[dict[str, float]]:
    for seed in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            started = time.monotonic()
            row = measure(photos, size, seed, Path(scratch))
            print(
                f"{size} photos, draw {seed}, {time.monotonic() - started:.0f} s: {row}", flush=True
            )
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 25])
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    photos = Photos(args.folder)
    if args.verify:
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as scratch:
                print(verify(photos, size, Path(scratch)), flush=True)
        return
    content: dict[str, Any] = {"date": date.today().isoformat(), "photos": len(photos.labels)}
    content["sizes"] = {}
    for size in args.sizes:
        rows = list(draws(photos, size, args.draws))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        content["sizes"][size] = columns
        for name, values in columns.items():
            mean, spread = statistics.mean(values), statistics.stdev(values)
            print(f"{size} {name}: {100 * mean:.2f} % (sd {100 * spread:.2f})", flush=True)
    if args.write:
        content |= {"hardware": hardware(), "versions": versions()}
        RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
