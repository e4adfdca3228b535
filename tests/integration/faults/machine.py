"""Faults of the machine: a full disk, too little memory, files that are lost, damaged or in use.

As in promises.py, each function returns what was not kept.
"""

import os
import random
import signal
import subprocess
from pathlib import Path

from helpers import write_image_folder
from integration.faults.lab import BASE, Ended, Fault, Lab, small_disk
from integration.faults.promises import unreadable
from run_helpers import differences, read_results

from src.errors import UserError
from src.runs.checkpoint import read
from src.runs.run_folder import status

DISK = "2m"  # room for two checkpoints and one that is being written
# Batches whose activations do not fit into the memory that `limit_memory` leaves.
LARGE = ["data.image_size=64", "data.batch_size=1024", "trainer.limit_train_batches=1"]


def full_disk(lab: Lab, options: list[str], point: str, count: int = 1) -> list[str]:
    """A file system that has no room left while a file is written (Linux, needs root)."""
    lab.reference(options)
    after = 20_000 if point in ("last", "best") else 0  # a page that is begun has room left
    fault = Fault(point, "fill_disk", count, after)
    with small_disk(lab.folder(), DISK) as disk:
        folder = disk / "run"
        ended = lab.run(folder, options, fault, FAULT_DISK=str(disk))
        found = [] if ended.reached else ["the point was not reached"]
        found += two_lines(ended, "disk is full") + unreadable(folder)
        # There may be no room to record the failure, but nothing says that all is well.
        if status(folder) == "completed":
            found.append("the status is completed")
        (disk / "filler").unlink(missing_ok=True)
        return found + lab.go_on(folder, options)


def full_disk_of_tensorboard(lab: Lab, options: list[str]) -> list[str]:
    """TensorBoard, which writes in a thread of its own, finds no room (Linux, needs root)."""
    options = [option for option in options if not option.startswith("logger=")]
    return full_disk(lab, options, "test")


def killed_loader(lab: Lab, options: list[str]) -> list[str]:
    """The system kills a loader process, as it does for lack of memory."""
    options = [*options, "data.num_workers=2"]
    return failed_write(lab, options, Fault("loader", "SIGKILL", 3), "loader process was killed")


def second_resume(lab: Lab, options: list[str]) -> list[str]:
    """A run that is still going on is resumed by a second process."""
    return two_processes(lab, options, "validation", count=9, resume=True)


def limited_at_start(lab: Lab, options: list[str]) -> list[str]:
    """A process that may write no byte into files, from before Hydra's first one."""
    ended = lab.run_fresh(lab.folder(), options, Fault("import", "limit_file_size"))
    found = [] if ended.reached else ["the point was not reached"]
    return found + two_lines(ended, "disk is full")


def full_disk_at_start(lab: Lab, options: list[str]) -> list[str]:
    """A file system without room for Hydra's first file (Linux, needs root)."""
    with small_disk(lab.folder(), "64k") as disk:
        with open(disk / "filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)) == 4096 and os.statvfs(disk).f_bavail:
                pass
        ended = lab.run_fresh(disk / "run", options)
        return two_lines(ended, "disk is full")


def failed_write(lab: Lab, options: list[str], fault: Fault, words: str) -> list[str]:
    """A write that fails with an error of the system."""
    folder = lab.folder()
    lab.reference(options)
    ended = lab.run(folder, options, fault)
    return failed(ended, folder, words) + unreadable(folder) + lab.go_on(folder, options)


def out_of_memory(lab: Lab, options: list[str], fault: Fault) -> list[str]:
    """Memory that does not suffice: an error that is raised, or a limit of the process."""
    if fault.action == "limit_memory":
        options = [*options, *LARGE]
    return failed_write(lab, options, fault, "not enough memory")


def read_only(lab: Lab, options: list[str]) -> list[str]:
    """A folder that cannot be written, on a file system that is mounted read-only (needs root)."""
    with small_disk(lab.folder(), "64k") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return two_lines(lab.run_fresh(disk / "run", options), "Read-only")


def two_processes(
    lab: Lab, options: list[str], point: str, count: int = 1, resume: bool = False
) -> list[str]:
    """A second process is refused in the folder of a first one, which is not disturbed."""
    folder = lab.folder()
    lab.reference(options)
    first = lab.start(folder, options, Fault(point, "SIGSTOP", count))
    typed = [*options, f"resume={folder}/checkpoints/last.ckpt"] if resume else options
    try:
        first.wait_for_fault()
        found = two_lines(lab.run(folder, typed), str(folder))
    finally:
        os.kill(first.pid, signal.SIGCONT)
    ended = first.wait()
    if ended.code != 0:
        return [*found, f"the first ended with {ended.code}: {ended.stderr[-500:]}"]
    return found + differences(lab.reference(options), folder)


def lost_image(lab: Lab) -> list[str]:
    """A run whose data have lost a file is not resumed as if they had not."""
    root = write_image_folder(lab.folder(), {"cat": 40, "dog": 40})
    folder = lab.folder()
    options = [*BASE, "data=dog_cat", f"data.root={root}", "data.val_size=10"]
    options += ["callbacks.last.every_n_train_steps=1", "callbacks.report.enabled=false"]
    options += ["data.batch_size=16"]
    ended = lab.run(folder, options, Fault("mid_epoch", "SIGKILL", 3))
    found = [] if ended.reached else ["the point was not reached"]
    image = root / "dog" / "007.jpg"
    content = image.read_bytes()
    image.unlink()
    resume = f"resume={folder}/checkpoints/last.ckpt"
    found += two_lines(lab.run(folder, [*options, resume]), "images")
    image.write_bytes(content)
    return found + lab.go_on(folder, options)


def accepted_flips(checkpoint: Path, scratch: Path, n: int, seed: int = 0) -> list[int]:
    """The bits, drawn at random, whose change a reader of the checkpoint does not notice."""
    content = bytearray(checkpoint.read_bytes())
    draw = random.Random(seed)
    damaged = scratch / checkpoint.name
    accepted = []
    for bit in draw.sample(range(len(content) * 8), n):
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        try:
            read(damaged)
        except UserError as error:
            if error.problem and error.remedy:
                continue
        accepted.append(bit)
    return accepted


def failed(ended: Ended, folder: Path, words: str) -> list[str]:
    """What is not as it is after a failure that the user can mend."""
    found = [] if ended.reached else ["the point was not reached"]
    found += two_lines(ended, words)
    try:
        results = read_results(folder)
    except OSError as error:
        return [*found, str(error)]
    if results["status"] != "failed" or words not in results["error"]:
        found.append(f"results.json says {results['status']}: {results.get('error')}")
    return found


def two_lines(ended: Ended, *words: str) -> list[str]:
    """Exit code 2, and nothing but a problem and a remedy on the screen."""
    if ended.has_two_lines() and all(word in ended.stderr for word in words):
        return []
    return [f"exit code {ended.code}: {ended.stderr[-6000:]}"]
