"""The README's table of results, from the runs themselves.

    python benchmarks/publish.py RUN [RUN ...]    keep results.json and run.json of finished recipes, without paths of this machine
    python benchmarks/publish.py                  write the table anew

A row is a recipe of `conf/experiment`; what is kept lies under `benchmarks/results/<recipe>/seed_<n>/`.
"""

import json
import re
import statistics
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- results: python benchmarks/publish.py -->", "<!-- end of results -->"

# What the tutorials report, and on what.
TUTORIALS = {
    "digits": "",
    "fashion_mnist_fast": "loss 0.312 after 5 epochs, on the test split, no accuracy",
    "fashion_mnist_best": "",
    "cifar10_fast": "about 88 % after 150 epochs on the original pictures, tuned on the test split",
    "dog_cat_finetune": "87 % in about 30 minutes on a Titan X",
    "garment_fashion_mnist": "loss 0.312 after 5 epochs, on the test split, no accuracy",
}


def main() -> None:
    for run in map(Path, sys.argv[1:]):
        keep(run)
    for name in ("README.md", "README.zh-CN.md"):
        page = ROOT / name
        if page.exists():
            page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def keep(run: Path) -> None:
    """Copy what a finished run says of itself."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if results["status"] != "completed":
        sys.exit(f"{run} is {results['status']}.")
    resumed = any(a.startswith("resume=") for a in facts["command"])
    if resumed:
        facts["command"] = facts["earlier"][0]["command"]
    recipe = next((a.partition("=")[2] for a in facts["command"] if a.startswith("experiment=")), None)
    if recipe is None:
        sys.exit(f"{run} is no recipe: it was started without experiment=.")
    if facts["git"] is None or facts["git"]["dirty"]:
        print(f"{run}: the code differed from its commit.", file=sys.stderr)
    facts["earlier"] = [
        {name: part[name] for name in ("start", "end")} for part in facts["earlier"] if resumed
    ]  # else: broken-off attempts
    facts["command"] = [a for a in facts["command"] if not re.match(r"(hydra\.|data\.root=)", a)]
    folder = RESULTS / recipe / f"seed_{results['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("results.json", results), ("run.json", facts)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def table() -> str:
    """The table as Markdown, a line a recipe."""
    lines = [
        "| recipe | network | data | accuracy | time | the tutorial |",
        "|---|---|---|---|---|---|",
    ]
    machines = {}
    for recipe in sorted(path.name for path in RESULTS.iterdir() if path.is_dir()):
        folders = sorted((RESULTS / recipe).iterdir())
        results = [json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in folders]
        runs = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders]
        parts = _parts(recipe)
        split = "test" if results[0]["test"] else "validation"
        accuracy = _mean([100 * (result["test"] or result["val"])["acc"] for result in results], 2)
        seconds = _mean([_seconds(run) for run in runs], 0)
        hardware, versions = runs[0]["hardware"], runs[0]["versions"]
        threads = "" if hardware["threads"] == hardware["cores"] else f", threads: {hardware['threads']}"
        lines.append(
            f"| `{recipe}` | {parts['model']} | {parts['data']} | {accuracy} % of {split}, n = {len(results)} | {seconds} s{threads} "
            f"| {TUTORIALS[recipe] or '-'} |"
        )
        machines[f"{hardware['cores']} cores of an {hardware['processor']}, torch {versions['torch']}"] = None
    note = "Mean ± standard deviation over seeds 0 to n - 1; the time is that of the whole run without its imports, from files to report."
    return "\n".join([*lines, "", f"{note} {'; '.join(machines)}."])


def _seconds(run: dict) -> float:
    """How long a run took, the parts before it was gone on with included."""
    parts = [run, *run["earlier"]]
    return sum((datetime.fromisoformat(part["end"]) - datetime.fromisoformat(part["start"])).total_seconds() for part in parts)


def _parts(recipe: str) -> dict[str, str]:
    defaults = yaml.safe_load((ROOT / "conf" / "experiment" / f"{recipe}.yaml").read_text(encoding="utf-8"))["defaults"]
    return {key.removeprefix("override /"): value for entry in defaults for key, value in entry.items()}


def _mean(values: Iterable[float], digits: int) -> str:
    values = list(values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def with_table(text: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    main()
