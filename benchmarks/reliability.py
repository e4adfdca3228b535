"""What docs/reliability.md states, measured again: python benchmarks/reliability.py kills (or mistakes, files, checkpoints, ...)

Every sub-command prints its figures and exits with 1 when one of them is not as promised. Scratch files go to a temporary folder.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TIMING = {"seconds", "images_per_second", "train_seconds"}


def environment() -> dict[str, str]:
    """For processes of their own: this tree, no GPU, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def composed(overrides: list[str]):
    """The config of a command line."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", ["trainer.accelerator=cpu", "logger=none", *overrides])


# Kills -----------------------------------------------------------------------------------------------------------------

SMALL = ["model=simple_v3", "data/augment=crop_flip", "data.image_size=16", "trainer.limit_train_batches=12", "trainer.max_epochs=4"]
SETUPS = {
    "checkpoints at epoch ends and every 5 steps": ["callbacks.last.every_n_train_steps=5"],
    "checkpoints every 4 steps, which the epoch's end is one of; two validations an epoch": [
        "callbacks.last.every_n_train_steps=4",
        "trainer.val_check_interval=0.5",
    ],
    "checkpoints at epoch ends, two batches a step, two loader processes, plateau schedule": [
        "trainer.accumulate_grad_batches=2",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
    ],
}


def train_in(folder: Path, options: list[str], steps=None) -> None:
    """One run in this process; `steps` is a shared counter of training batches."""
    import torch

    from src.callbacks import StepSeed
    from src.training import train

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if steps is not None:
        original = StepSeed.on_train_batch_end

        def counting(self, *args, **kwargs):
            original(self, *args, **kwargs)
            steps.value += 1

        StepSeed.on_train_batch_end = counting
    train(composed(options), folder)


def killed_run(folder: Path, options: list[str], moment: Callable[[int], bool]) -> bool:
    """Start a run and SIGKILL it as soon as `moment(batches so far)` says so. Returns whether it was still running."""
    context = multiprocessing.get_context("fork")  # imports once, not thirty times; the kill is as real
    steps = context.Value("q", 0, lock=False)
    process = context.Process(target=train_in, args=(folder, options, steps))
    process.start()
    while process.is_alive() and not moment(steps.value):
        pass
    alive = process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive and process.exitcode == -signal.SIGKILL


def whole_run(folder: Path, options: list[str]) -> int:
    process = multiprocessing.get_context("fork").Process(target=train_in, args=(folder, options))
    process.start()
    process.join()
    return process.exitcode


def differences(one: Path, other: Path) -> list[str]:
    """What two finished run folders do not share bit for bit: weights, optimizer states, tables, figures. Times aside."""
    import torch

    found = []
    for name in ("best", "last"):
        a, b = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        found += [f"{name}.ckpt {key}" for key in a["state_dict"] if not torch.equal(a["state_dict"][key], b["state_dict"][key])]
        for key, state in a["optimizer_states"][0]["state"].items():
            for entry, value in state.items():
                if not torch.equal(torch.as_tensor(value), torch.as_tensor(b["optimizer_states"][0]["state"][key][entry])):
                    found.append(f"{name}.ckpt optimizer {key} {entry}")
    tables = []
    for run in (one, other):
        with open(run / "metrics.csv", newline="") as file:
            tables.append([{key: value for key, value in row.items() if key not in TIMING} for row in csv.DictReader(file)])
    if tables[0] != tables[1]:
        found.append("metrics.csv")
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    found += [f"results.json {key}" for key in results[0] if key not in TIMING and results[0][key] != results[1].get(key)]
    return found


def kills(n: int = 30, seed: int = 0) -> bool:
    """SIGKILL at random moments, a third of them aimed into a checkpoint write; then resumed and compared with the undisturbed run."""
    import src.training  # noqa: F401

    draw = random.Random(seed)
    equal = inside = restarted = unreadable = made = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for k, (title, extra) in enumerate(SETUPS.items()):
            options = [*SMALL, *extra]
            reference = scratch / f"whole{k}"
            assert whole_run(reference, options) == 0
            for i in range(k, n, len(SETUPS)):
                folder = scratch / f"{k}-{i}"
                part = folder / "checkpoints"
                aimed = (i // len(SETUPS)) % 3 == 0
                after, delay = draw.randint(1, 47), draw.uniform(0, 0.02)

                def moment(steps: int, part=part, aimed=aimed, after=after, delay=delay) -> bool:
                    if steps < after:
                        return False
                    if aimed:  # the next time that a checkpoint is on its way
                        return part.is_dir() and any(name.endswith(".part") for name in os.listdir(part))
                    time.sleep(delay)
                    return True

                if not killed_run(folder, options, moment):  # over before the moment came: only behind the last write
                    print(f"  kill {i}: the run was over")
                    continue
                made += 1
                left = list(part.glob("*.part")) if part.is_dir() else []
                inside += bool(left)
                readable = [checkpoint_readable(path) for path in part.glob("*.ckpt")] if part.is_dir() else []
                unreadable += readable.count(False)
                last = part / "last.ckpt"
                restarted += not last.is_file()
                code = whole_run(folder, [*options, *([f"resume={last}"] if last.is_file() else [])])
                wrong = differences(reference, folder) if code == 0 else [f"exit code {code}"]
                equal += not wrong
                print(f"  kill {i} behind batch {after}{' in a write' if left else ''}: {'; '.join(wrong[:4]) or 'bit-equal'}", flush=True)
            print(f"{title}: done", flush=True)
    print(f"{equal} of {made} bit-equal to the undisturbed run; {inside} kills inside a checkpoint write;")
    print(f"{unreadable} unreadable checkpoints; {restarted} came before the first checkpoint and started again from nothing")
    return equal == made and unreadable == 0 and inside >= (5 if n >= 30 else 1)


def checkpoint_readable(path: Path) -> bool:
    from src.checkpoint import read
    from src.errors import UserError

    try:
        read(path)
    except UserError:
        return False
    return True


COMMANDS: dict[str, Callable[..., bool]] = {"kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("-n", type=int, help="how many, where that can be chosen")
    arguments = parser.parse_args()
    options = {} if arguments.n is None else {"n": arguments.n}
    sys.exit(0 if COMMANDS[arguments.what](**options) else 1)


if __name__ == "__main__":
    main()
