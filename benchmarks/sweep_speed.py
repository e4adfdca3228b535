"""A sweep of four jobs on several workers against one job after the other.

    python benchmarks/sweep_speed.py [--workers 2] [--epochs 2] [--rounds 2]

Prints the wall time of the whole command, imports and checks included, as median and range over the rounds, the contenders taking turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sweep(options: list[str], epochs: int) -> float:
    """Seconds that a sweep over four seeds takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "-m", "seed=0,1,2,3", f"trainer.max_epochs={epochs}", "trainer.accelerator=cpu"]
        start = time.perf_counter()
        subprocess.run([*command, f"hydra.sweep.dir={folder}/sweep", *options], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    contenders = {
        f"{arguments.workers} at a time, a process each": [f"hydra.launcher.n_jobs={arguments.workers}"],
        "one after the other, a process each": ["hydra.launcher.n_jobs=1"],
        "one after the other, in one process (hydra/launcher=basic)": ["hydra/launcher=basic"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, options in contenders.items():
            seconds[name].append(sweep(options, arguments.epochs))
            print(f"  {seconds[name][-1]:.1f} s, {name}", flush=True)
    first = next(iter(contenders))
    for name, values in seconds.items():
        ratios = [mine / other for mine, other in zip(seconds[first], values, strict=True)]
        ratio = "" if name == first else f"; {first.split(',')[0]} takes {statistics.median(ratios):.2f} of it"
        print(f"{name}: {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f}){ratio}")


if __name__ == "__main__":
    main()
