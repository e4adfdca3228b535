"""Measures what docs/reliability.md states: python benchmarks/reliability.py faults

Each command prints its numbers and exits with 1 if one of them is not as promised. Scratch files go
to a temporary folder. `faults` needs Linux; full file systems are tried where one can be mounted.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from typing_errors import BEFORE_DATA, BY_HYDRA

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
PAGE = ROOT / "docs" / "reliability.md"
START = "<!-- faults: python benchmarks/reliability.py faults --write -->"
END = "<!-- end of faults -->"
HEADER = "| fault | where | tried | as promised |\n|---|---|---|---|\n"


# Faults


def faults(n: int = 60, write: bool = False) -> bool:
    """Faults at named points of real processes, see tests/integration/faults.

    Args:
        n: signals; half as many kills, and 200 changed bits for 60 signals.
        write: write the table into docs/reliability.md.
    """
    import torch
    from integration.faults import plan
    from integration.faults.lab import Lab

    torch.set_num_threads(1)
    flips = round(n * 200 / 60)
    trials = [*plan.signals(n), *plan.kills(n // 2), *plan.finished(), *plan.others()]
    trials += plan.disks() if can_mount() else []
    counts: dict[tuple[str, str], list[int]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        lab = Lab(Path(scratch))
        for i, trial in enumerate(trials):
            found = trial.run(lab)
            print(f"{i + 1}/{len(trials)} {trial.title}: {found or 'as promised'}", flush=True)
            row = counts.setdefault((trial.kind, trial.point), [0, 0])
            row[0] += 1
            row[1] += not found
        unnoticed = plan.unnoticed_flips(lab, flips)
    counts["one bit changed", "last.ckpt"] = [flips, flips - len(unnoticed)]
    table = fault_table(counts)
    print(table)
    if write:
        write_table(f"{describe_machine(n)}\n\n{table}")
    return all(tried == kept for tried, kept in counts.values())


def can_mount() -> bool:
    from integration.faults.lab import small_disk

    with tempfile.TemporaryDirectory() as scratch:
        try:
            with small_disk(Path(scratch, "disk"), "64k"):
                return True
        except OSError as error:
            print(f"full file systems are left out: {error}")
            return False


def fault_table(counts: dict[tuple[str, str], list[int]]) -> str:
    """A row for each kind and point; a sum for each kind of which there are several points."""
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in counts):
        points = {point: row for (other, point), row in counts.items() if other == kind}
        rows += [f"| {kind} | {point} | {row[0]} | {row[1]} |" for point, row in points.items()]
        if len(points) > 1:
            tried, kept = (sum(row[i] for row in points.values()) for i in (0, 1))
            rows.append(f"| **{kind}** | **all** | **{tried}** | **{kept}** |")
    return HEADER + "\n".join(rows)


def write_table(content: str) -> None:
    """Replace what stands between the two markers in docs/reliability.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{content}\n{END}{after}", encoding="utf-8")


def describe_machine(n: int) -> str:
    """Command, hardware, versions and date."""
    from src.runs.environment import hardware, versions

    machine, software = hardware(), versions()
    names = {"python": "Python", "torch": "torch", "lightning": "lightning"}
    used = ", ".join(f"{title} {software[name]}" for name, title in names.items())
    return (
        f"`python benchmarks/reliability.py faults --n {n} --write`, {machine['cores']} cores "
        f"of an {machine['processor']}, no GPU, one thread; {used}; {date.today()}."
    )


# Typing errors, long runs


def type_command(arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess, float]:
    """`python train.py ...`, and the seconds that it takes."""
    before = time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), *arguments.split()]
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
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


def soak(n: int = 1000) -> bool:
    """Memory and open files over many epochs of a tiny run (Linux)."""
    from helpers import run_training

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
    overrides = ["model=lenet", "data.image_size=16", "logger=tensorboard"]
    overrides += ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
    overrides += [f"trainer.max_epochs={n}", "scheduler=constant"]
    with tempfile.TemporaryDirectory() as scratch:
        run_training(Path(scratch), *overrides)
    (_, early, files_early), (_, late, files_late) = seen[0], seen[-1]
    return late - early < 0.05 * early and files_early == files_late


COMMANDS: dict[str, Callable[..., bool]] = {
    function.__name__: function for function in (faults, typos, soak)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("-n", "--n", type=int, help="number of signals, or epochs of soak")
    parser.add_argument("--write", action="store_true", help="write the table of faults")
    arguments = parser.parse_args()
    options = {} if arguments.n is None else {"n": arguments.n}
    if arguments.write:
        options["write"] = True
    sys.exit(0 if COMMANDS[arguments.what](**options) else 1)


if __name__ == "__main__":
    main()
