"""Runs with the learning rate that `find_lr=true` ends with, compared with the default.

    python benchmarks/find_lr.py --fashion FOLDER --cifar FOLDER [--seeds 0] [--networks lenet]

FOLDER of `--cifar` holds class folders in `train` and `test`. Where the rate stays, a pair is done;
else runs of the same length are trained with both rates, and tested once. The new rate is at least
as good within noise where the 95 % interval of the difference in test accuracy (paired bootstrap
over the images) reaches 0. Pairs in `benchmarks/results/find_lr.json` are not measured again.
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
RESULTS = ROOT / "benchmarks" / "results" / "find_lr.json"

import numpy as np  # noqa: E402 - after the number of threads is set
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from helpers import composed  # noqa: E402

from src.engine.find_lr import find_lr  # noqa: E402
from src.engine.train import train  # noqa: E402
from src.reporting.statistics import Predictions, bootstrap_differences  # noqa: E402
from src.runs.environment import hardware, versions  # noqa: E402

NETWORKS = {
    "lenet": ["data.image_size=28"],
    "quick": ["data.image_size=16"],
    "simple_v3": ["data.image_size=16"],
    "resnet18": ["data.image_size=16"],
    "resnet9": ["data.image_size=16", "model.width=16"],
}
BUDGET = ["trainer.limit_train_batches=40", "data.batch_size=32"]  # 400 steps
BUDGET += ["trainer.check_val_every_n_epoch=2", "data.eval_batch_size=250"]
BUDGET += ["trainer.accelerator=cpu", "logger=none", "~callbacks.report"]


def data_settings(args: argparse.Namespace, scratch: str) -> dict[str, list[str]]:
    """The settings of each data set; the images of CIFAR-10 are JPEG files."""
    own = ["data.val_size=1000", "trainer.limit_test_batches=20"]  # 5,000 test images
    files = ["data=image_folder", f"data.root={args.cifar}", f"data.cache_dir={scratch}"]
    return {
        "digits": ["data=digits"],
        "fashion_mnist": ["data=fashion_mnist", f"data.root={args.fashion}", *own],
        "cifar10": [*files, *own],
    }


def run(settings: list[str], folder: Path) -> tuple[float, Predictions]:
    """Train as `train.py` does; returns the test accuracy, and which images were right."""
    results = train(composed(settings), folder)
    table = pd.read_csv(folder / "predictions.csv")
    correct = (table["label"] == table["prediction"]).to_numpy(int)
    return results["test"]["acc"], Predictions(np.ones_like(correct), correct, correct)


def measure(settings: list[str], scratch: Path) -> dict[str, Any]:
    """One pair: the rate that find_lr ends with, and where it is new, two runs."""
    rate = find_lr(composed(settings), settings, scratch / "find_lr")
    row = json.loads((scratch / "find_lr" / "results.json").read_text())
    if rate == row["configured"]:
        return row | {"as_good": True}
    default_acc, default = run(settings, scratch / "default")
    acc, found = run([*settings, f"optimizer.lr={rate}"], scratch / "found")
    difference = bootstrap_differences([default], [found])["acc"]
    row |= {"default_acc": default_acc, "acc": acc, "difference": difference}
    return row | {"as_good": difference["high"] >= 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", required=True, help="data.root of Fashion-MNIST")
    parser.add_argument("--cifar", required=True, help="CIFAR-10 as images in class folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in args.seeds:
            for network in args.networks:
                for data, own in data_settings(args, scratch).items():
                    add(f"{network} {data} {seed}", [f"model={network}", f"seed={seed}", *own])
    pairs = read_pairs()
    for name, row in pairs.items():
        print(name, row["configured"], row["lr"], row.get("difference", "the rate stays"))
    good = sum(row["as_good"] for row in pairs.values())
    print(f"At least as well within noise: {good} of {len(pairs)} pairs")


def read_pairs() -> dict[str, Any]:
    """The pairs measured so far, also by another process."""
    return json.loads(RESULTS.read_text())["pairs"] if RESULTS.exists() else {}


def add(name: str, settings: list[str]) -> None:
    """Measure a pair that the results do not have, and add it."""
    if name in read_pairs():
        return
    with tempfile.TemporaryDirectory() as scratch:
        row = measure([*settings, *NETWORKS[name.split()[0]], *BUDGET], Path(scratch))
    print(name, row, flush=True)
    content = {"date": date.today().isoformat(), "hardware": hardware(), "versions": versions()}
    content |= {"budget": BUDGET, "networks": NETWORKS, "pairs": read_pairs() | {name: row}}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
