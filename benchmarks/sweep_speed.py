"""A sweep of four jobs with several at a time, compared with one job after the other.

    python benchmarks/sweep_speed.py [--workers 2] [--epochs 2] [--rounds 2]

Prints the wall time of the whole command, with imports and checks, as median and range over the
rounds. The contenders take turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_sweep(options: list[str], epochs: int) -> float:
    """Seconds that a sweep over four seeds takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            "-m",
            "seed=0,1,2,3",
            f"trainer.max_epochs={epochs}",
            "trainer.accelerator=cpu",
            f"hydra.sweep.dir={folder}/sweep",
            *options,
        ]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    contenders = {
        f"{arguments.workers} at a time": [f"hydra.launcher.n_jobs={arguments.workers}"],
        "one after the other": ["hydra.launcher.n_jobs=1"],
        "in one process (hydra/launcher=basic)": ["hydra/launcher=basic"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, options in contenders.items():
            seconds[name].append(run_sweep(options, arguments.epochs))
            print(f"  {seconds[name][-1]:.1f} s, {name}", flush=True)
    parallel = next(iter(seconds.values()))
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(parallel, values, strict=True))
        spread = f"({min(values):.1f} to {max(values):.1f})"
        print(f"{name}: {statistics.median(values):.1f} s {spread}; the first is {ratio:.2f} of it")


if __name__ == "__main__":
    main()
