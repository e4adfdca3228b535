"""What is promised for signals and kills: each function returns what was not kept."""

import csv
import json
import signal
from pathlib import Path

from integration.faults.lab import Ended, Fault, Lab
from run_helpers import read_checkpoint, read_results

from src.errors import UserError
from src.runs.checkpoint import read

# A signal saves a checkpoint here. At the others nothing may have been trained yet.
IN_TRAINING = ("first_step", "mid_epoch", "checkpoint")


def after_signal(lab: Lab, options: list[str], fault: Fault) -> list[str]:
    """A signal ends a run with its exit code and an honest status, and the run goes on."""
    folder = lab.folder()
    lab.reference(options)
    ended = lab.run(folder, options, fault)
    number = signal.Signals[fault.action]
    found = _not_reached(ended)
    if ended.shell_code != 128 + number:
        found.append(f"exit code {ended.code}: {ended.stderr[-500:]}")
    if fault.point != "import":
        if "Traceback" in ended.stderr:
            found.append(f"a traceback: {ended.stderr[-500:]}")
        found += _dishonest_status(folder, fault, number.name)
    if fault.point in IN_TRAINING:
        found += _not_saved(folder, fault)
    return found + unreadable(folder) + lab.go_on(folder, options)


def after_kill(lab: Lab, options: list[str], fault: Fault) -> list[str]:
    """What a killed run has written is whole, and the run goes on to the same end."""
    folder = lab.folder()
    lab.reference(options)
    ended = lab.run(folder, options, fault)
    found = _not_reached(ended)
    if ended.code != -signal.SIGKILL:
        found.append(f"exit code {ended.code}: {ended.stderr[-500:]}")
    return found + unreadable(folder) + lab.go_on(folder, options)


def after_fault_in_finished(lab: Lab, options: list[str], fault: Fault) -> list[str]:
    """A finished run that is resumed, and ended before it has new results, keeps the old ones."""
    folder = lab.folder()
    assert lab.run(folder, options).code == 0
    before = (folder / "results.json").read_bytes()
    resume = f"resume={folder}/checkpoints/last.ckpt"
    found = _not_reached(lab.run(folder, [*options, resume], fault))
    if (folder / "results.json").read_bytes() != before:
        found.append("results.json is another one")
    return found + unreadable(folder) + lab.go_on(folder, options)


def unreadable(folder: Path) -> list[str]:
    """Files under their final names that are not whole."""
    found = []
    for path in folder.glob("checkpoints/*.ckpt"):
        try:
            read(path)
        except UserError as error:
            found.append(error.problem)
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            found.append(f"{path.name}: {error}")
    for path in folder.glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            lengths = {len(row) for row in csv.reader(file)}
        if len(lengths) != 1:
            found.append(f"{path.name}: rows of {sorted(lengths)} columns")
    return found


def _not_reached(ended: Ended) -> list[str]:
    return [] if ended.reached else [f"the point was not reached: {ended.stderr[-500:]}"]


def _dishonest_status(folder: Path, fault: Fault, name: str) -> list[str]:
    """What results.json and run.json should not say after a signal."""
    try:
        results, run = (read_results(folder, file) for file in ("results.json", "run.json"))
    except OSError as error:
        return [str(error)]
    expected = {"status": "interrupted", "error": f"stopped by {name}"}
    contents = {"run.json": run, "results.json": results}
    if fault.point == "report":  # the results were complete before
        del contents["results.json"]
        if results["status"] != "completed" or not results["test"]:
            return ["the results are lost"]
    found = [
        f"{file} has the {key} {content.get(key)}"
        for file, content in contents.items()
        for key, value in expected.items()
        if content.get(key) != value
    ]
    if fault.point == "test" and not (results.get("train") and results.get("val")):
        found.append("the metrics of the training are lost")
    return found


def _not_saved(folder: Path, fault: Fault) -> list[str]:
    """A signal in the training saves the step that it came in."""
    try:
        loops = read_checkpoint(folder)["loops"]["fit_loop"]
    except OSError as error:
        return [str(error)]
    batches = loops["epoch_loop.batch_progress"]["total"]["processed"]
    steps = fault.count if fault.point in ("first_step", "mid_epoch") else 1
    return [] if batches >= steps else [f"last.ckpt holds {batches} batches"]
