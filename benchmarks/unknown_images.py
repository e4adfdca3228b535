"""How well a calibrated checkpoint tells unknown images from known ones.

    python benchmarks/unknown_images.py --ckpt runs/NAME --root FOLDER --unknown FOLDER [FOLDER ...]

The checkpoint comes from evaluate.py calibrate=true; FOLDER of --root are the data of its training,
whose test split stands for the known images, and folders of --unknown hold none of its classes.
Prints the fraction of the images whose probability is above 0.9, and that of those that count as
known, with the 95 % interval (Wilson).
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.data import DataLoader

import src
from src.engine.prediction_files import PredictedFiles, find_files
from src.engine.rebuild import rebuild_datamodule
from src.inference import Classifier
from src.reporting.analysis import wilson_interval
from src.runs import checkpoint

BATCH = 8


def of_files(net: Classifier, folder: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (N, num_classes) and distances (N,) of the images in a folder."""
    files = find_files(folder)[0]
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    workers = os.cpu_count() or 1
    loader = DataLoader(PredictedFiles(net), sampler=batches, batch_size=None, num_workers=workers)
    values = [(batch.probabilities, batch.distances) for batch in loader if batch.files]
    return torch.cat([value[0] for value in values]), torch.cat([value[1] for value in values])


@torch.inference_mode()
def of_test_split(net: Classifier, ckpt: str, root: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and distances of the test images of the training's data."""
    data = rebuild_datamodule(checkpoint.read(ckpt), {"root": root})
    data.prepare_data()
    data.setup("test")
    positions = torch.arange(data.sizes()["test"]).split(BATCH)
    values = [net.measure(data.images("test", some)) for some in positions]
    return torch.cat([value[0] for value in values]), torch.cat([value[1] for value in values])


def percent(hits: torch.Tensor) -> str:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return f"{hits.double().mean():7.2%} ({low:.2%} to {high:.2%})"


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--unknown", required=True, nargs="+")
    options = parser.parse_args()
    net = src.load(options.ckpt)
    measured = {"known (test split)": of_test_split(net, options.ckpt, options.root)}
    for folder in options.unknown:
        measured[folder] = of_files(net, folder)
    for name, (probabilities, distances) in measured.items():
        print(f"{name}, n={len(distances)}")
        print(f"  probability above 0.9: {percent(probabilities.amax(1) > 0.9)}")
        print(f"  counted as known:      {percent(distances <= 1)}", flush=True)


if __name__ == "__main__":
    main()
