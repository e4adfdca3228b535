"""Measures what docs/reliability.md states: python benchmarks/reliability.py kills

Each command prints its numbers and exits with 1 if one of them is not as promised. Scratch files go
to a temporary folder.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_errors import BEFORE_DATA, BY_HYDRA

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TIMES = ("seconds", "images_per_second", "train_seconds")  # they differ in every run
SMALL = [
    "model=simple_v3",
    "data/augment=crop_flip",
    "data.image_size=16",
    "trainer.limit_train_batches=12",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "logger=none",
]
SETUPS = {
    "checkpoints at the end of epochs and every 5 steps": ["callbacks.last.every_n_train_steps=5"],
    "checkpoints every 4 steps, two validations per epoch": [
        "callbacks.last.every_n_train_steps=4",
        "trainer.val_check_interval=0.5",
    ],
    "two batches per step, two loader processes, plateau schedule": [
        "trainer.accumulate_grad_batches=2",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
    ],
}
BATCHES = 48  # of the whole run


def environment() -> dict[str, str]:
    """For the processes that are started: this tree, no GPU, one thread."""
    variables = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return os.environ | variables


def train_here(folder: Path, overrides: list[str], batches: Any = None) -> None:
    """One run in this process; `batches` is a shared counter of its training batches."""
    import torch
    from hydra import compose, initialize_config_dir

    from src.callbacks import StepSeed
    from src.engine.train import train

    torch.set_num_threads(1)
    original = StepSeed.on_train_batch_end

    def count(self: StepSeed, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if batches is not None:
            batches.value += 1

    StepSeed.on_train_batch_end = count
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides)
    train(cfg, folder)


def start(folder: Path, overrides: list[str], batches: Any = None) -> multiprocessing.Process:
    """The same in a fork, which saves the imports."""

    def silent() -> None:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        train_here(folder, overrides, batches)

    process = multiprocessing.get_context("fork").Process(target=silent)
    process.start()
    return process


def run(folder: Path, overrides: list[str]) -> int:
    """A whole run; returns its exit code."""
    process = start(folder, overrides)
    process.join()
    return process.exitcode


# Kills


def kill(folder: Path, overrides: list[str], after: int, while_writing: bool) -> bool:
    """SIGKILL a run after some batches; returns whether it was still running.

    Args:
        while_writing: wait for the next time that a checkpoint is being written.
    """
    batches = multiprocessing.get_context("fork").Value("q", 0, lock=False)
    process = start(folder, overrides, batches)
    while process.is_alive() and batches.value < after:
        time.sleep(0.0005)
    while process.is_alive() and while_writing and not list(folder.glob("checkpoints/*.part")):
        pass
    was_running = process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return was_running and process.exitcode == -signal.SIGKILL


def kills(n: int = 30, seed: int = 0) -> bool:
    """Kill runs at random moments, resume them and compare them with uninterrupted ones."""
    import src.engine.train  # noqa: F401

    draw = random.Random(seed)
    made = equal = while_writing = unreadable = restarted = 0
    with tempfile.TemporaryDirectory() as scratch:
        for k, (title, extra) in enumerate(SETUPS.items()):
            overrides = [*SMALL, *extra]
            reference = Path(scratch, f"reference{k}")
            assert run(reference, overrides) == 0
            for i in range(k, n, len(SETUPS)):
                folder = Path(scratch, f"{k}-{i}")
                in_write = (i // len(SETUPS)) % 3 == 0
                if not kill(folder, overrides, draw.randrange(1, BATCHES), in_write):
                    print(f"  kill {i}: the run was over")
                    continue
                made += 1
                while_writing += bool(list(folder.glob("checkpoints/*.part")))
                unreadable += sum(not is_readable(p) for p in folder.glob("checkpoints/*.ckpt"))
                last = folder / "checkpoints" / "last.ckpt"
                restarted += not last.is_file()
                resume = [f"resume={last}"] if last.is_file() else []
                code = run(folder, [*overrides, *resume])
                different = differences(reference, folder) if code == 0 else [f"exit code {code}"]
                equal += not different
                print(f"  kill {i}: {'; '.join(different[:4]) or 'bit-identical'}", flush=True)
            print(f"{title}: done", flush=True)
    print(f"{equal} of {made} bit-identical; {while_writing} while a checkpoint was written;")
    print(f"{unreadable} unreadable checkpoints; {restarted} came before the first checkpoint")
    return equal == made and unreadable == 0


def is_readable(path: Path) -> bool:
    from src.errors import UserError
    from src.runs.checkpoint import read

    try:
        read(path)
    except UserError:
        return False
    return True


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs do not share bit for bit, except for times."""
    import torch

    found = []
    for name in ("best.ckpt", "last.ckpt"):
        a, b = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        for part in ("state_dict", "optimizer_states"):
            try:
                torch.testing.assert_close(a[part], b[part], rtol=0, atol=0)
            except AssertionError:
                found.append(f"{name} {part}")
    for read in (read_metrics, read_results):
        if read(one) != read(other):
            found.append(read.__name__.removeprefix("read_"))
    return found


def read_metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def read_results(run: Path) -> dict[str, Any]:
    results = json.loads((run / "results.json").read_text())
    return {key: value for key, value in results.items() if key not in TIMES}


# Typing errors, a full disk, long runs


def type_command(arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess, float]:
    """`python train.py ...`, and the seconds that it takes."""
    before = time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), *arguments.split()]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)
    return done, time.monotonic() - before


def has_two_lines(done: subprocess.CompletedProcess, words: list[str]) -> bool:
    two = len(done.stderr.strip().splitlines()) == 2
    return done.returncode == 2 and two and all(word in done.stderr for word in words)


def typos() -> bool:
    """Typing errors: two lines with the right hint, exit code 2, and the time that they take."""
    wrong = 0
    cases = {"by Hydra alone": BY_HYDRA, "before data are read": BEFORE_DATA}
    with tempfile.TemporaryDirectory() as scratch:
        for title, commands in cases.items():
            slowest = 0.0
            for arguments, words in commands.items():
                done, seconds = type_command(arguments, Path(scratch))
                slowest = max(slowest, seconds)
                if not has_two_lines(done, words):
                    wrong += 1
                    print(f"  {arguments}: exit code {done.returncode}\n{done.stderr[-500:]}")
            print(f"{title}: {len(commands)}, the slowest in {slowest:.2f} s", flush=True)
    total = len(BY_HYDRA) + len(BEFORE_DATA)
    print(f"{total - wrong} of {total} end with two lines, the right hint and exit code 2")
    return wrong == 0


def full_disk() -> bool:
    """A small file system fills up while a checkpoint is written. Needs root on Linux."""
    right = 0
    sizes = {"the first last.ckpt": "760k", "the second best.ckpt": "1300k"}
    for title, size in sizes.items():
        with tempfile.TemporaryDirectory() as scratch:
            disk = Path(scratch, "disk")
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
            subprocess.run(mount, check=True)
            try:
                run = disk / "run"
                arguments = f"model=lenet trainer.max_epochs=3 logger=none hydra.run.dir={run}"
                done, _ = type_command(arguments, Path(scratch))
                checkpoints = [is_readable(path) for path in run.glob("checkpoints/*.ckpt")]
            finally:
                subprocess.run(["umount", str(disk)], check=True)
        ok = has_two_lines(done, ["disk is full"]) and all(checkpoints)
        right += ok
        print(f"{title}: {len(checkpoints)} checkpoints, {'ok' if ok else done.stderr[-500:]}")
    return right == len(sizes)


def soak(n: int = 1000) -> bool:
    """Memory and open files over many epochs of a tiny run (Linux)."""
    from src.callbacks import Progress

    seen: list[tuple[int, float, int]] = []

    def watch(self: Progress, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % max(1, n // 5) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
            seen.append((epoch, memory, len(os.listdir("/proc/self/fd"))))
            print(f"epoch {epoch:>5}: {memory:.1f} MB, {seen[-1][2]} open files", flush=True)

    Progress.on_train_epoch_start = watch
    overrides = ["model=lenet", "data.image_size=16", "trainer.accelerator=cpu"]
    overrides += ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
    overrides += [f"trainer.max_epochs={n}", "scheduler=constant"]
    with tempfile.TemporaryDirectory() as scratch:
        train_here(Path(scratch), overrides)
    (_, early, files_early), (_, late, files_late) = seen[0], seen[-1]
    return late - early < 0.05 * early and files_early == files_late


COMMANDS: dict[str, Callable[..., bool]] = {
    function.__name__: function for function in (kills, typos, full_disk, soak)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("-n", type=int, help="number of kills, or epochs of soak")
    arguments = parser.parse_args()
    options = {} if arguments.n is None else {"n": arguments.n}
    sys.exit(0 if COMMANDS[arguments.what](**options) else 1)


if __name__ == "__main__":
    main()
