"""Write the table of results in the README from finished runs.

    python benchmarks/publish.py RUN [RUN ...]    keep results.json and run.json of finished recipes
    python benchmarks/publish.py                  write the table again

A row is a recipe of `conf/experiment`. The kept files are in
`benchmarks/results/<recipe>/seed_<n>/`.
"""
# ruff: noqa: RUF001 - the Chinese page has Chinese punctuation

import json
import re
import statistics
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START = "<!-- results: python benchmarks/publish.py -->"
END = "<!-- end of results -->"


class Texts(NamedTuple):
    """What the table says in one language."""

    header: str
    accuracy: str
    splits: dict[str, str]
    seconds: str
    threads: str
    machine: str
    note: str
    between: str  # the note and each machine
    tutorials: dict[str, str]  # what the tutorials report for the same network and data


ENGLISH = Texts(
    header="| recipe | network | data | accuracy | time | the tutorial |",
    accuracy="{mean} % of {split}, n = {n}",
    splits={"test": "test", "val": "validation"},
    seconds="{mean} s",
    threads=", threads: {threads}",
    machine="{cores} cores of an {processor}, torch {torch}.",
    note=(
        "Mean ± standard deviation over seeds 0 to n - 1. The time is that of the whole run, "
        "from reading files to the report, without imports."
    ),
    between=" ",
    tutorials={
        "cifar10_fast": "about 88 % after 150 epochs on the original images, tuned on test",
        "dog_cat_finetune": "87 % in about 30 minutes on a Titan X",
        "fashion_mnist_fast": "loss 0.312 on test after 5 epochs, no accuracy",
        "garment_fashion_mnist": "loss 0.312 on test after 5 epochs, no accuracy",
    },
)
CHINESE = Texts(
    header="| 训练配方 | 网络 | 数据集 | 准确率 | 用时 | 教程中的结果 |",
    accuracy="{split} {mean}%（n = {n}）",
    splits={"test": "测试集", "val": "验证集"},
    seconds="{mean} 秒",
    threads="（{threads} 个线程）",
    machine="测试环境：{processor}（{cores} 核），torch {torch}。",
    note=(
        "准确率和用时为随机种子 0 至 n - 1 的均值 ± 标准差。"
        "用时指整个运行的时间，从读取文件到生成报告，不含导入模块的时间。"
    ),
    between="",
    tutorials={
        "cifar10_fast": "使用原始图像，训练 150 个 epoch 后约 88%，超参数按测试集调整",
        "dog_cat_finetune": "87%，在 Titan X 上约 30 分钟",
        "fashion_mnist_fast": "训练 5 个 epoch 后测试集损失为 0.312，未给出准确率",
        "garment_fashion_mnist": "训练 5 个 epoch 后测试集损失为 0.312，未给出准确率",
    },
)
PAGES = {"README.md": ENGLISH, "README.zh-CN.md": CHINESE}


def main() -> None:
    for run in sys.argv[1:]:
        keep(Path(run))
    for name, texts in PAGES.items():
        page = ROOT / name
        page.write_text(with_table(page.read_text(encoding="utf-8"), texts), encoding="utf-8")


def keep(run: Path) -> None:
    """Copy results.json and run.json of a finished run, without paths of this machine."""
    results = read(run / "results.json")
    record = read(run / "run.json")
    if results["status"] != "completed":
        sys.exit(f"{run} is {results['status']}.")
    was_resumed = any(word.startswith("resume=") for word in record["command"])
    if was_resumed:
        record["command"] = record["earlier"][0]["command"]
    recipe = find_recipe(record["command"])
    if recipe is None:
        sys.exit(f"{run} is not a recipe: it was started without experiment=.")
    if record["git"] is None or record["git"]["dirty"]:
        print(f"{run}: the code differed from its commit.", file=sys.stderr)
    # Earlier records of a folder count only if this run has continued them.
    earlier = record["earlier"] if was_resumed else []
    record["earlier"] = [{"start": part["start"], "end": part["end"]} for part in earlier]
    local = re.compile(r"hydra\.|data\.root=")
    record["command"] = [word for word in record["command"] if not local.match(word)]
    folder = RESULTS / recipe / f"seed_{results['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "results.json", results)
    write(folder / "run.json", record)


def find_recipe(command: Sequence[str]) -> str | None:
    """The value of `experiment=` in a command."""
    for word in command:
        if word.startswith("experiment="):
            return word.removeprefix("experiment=")
    return None


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def table(texts: Texts) -> str:
    """The table as Markdown, one line per recipe, and a note on the machines."""
    recipes = sorted(path.name for path in RESULTS.iterdir() if path.is_dir())
    machines: dict[str, None] = {}  # in their order, each once
    lines = [texts.header, "|---" * 6 + "|"]
    for recipe in recipes:
        folders = sorted((RESULTS / recipe).iterdir())
        results = [read(folder / "results.json") for folder in folders]
        records = [read(folder / "run.json") for folder in folders]
        lines.append(row(texts, recipe, results, records))
        versions, hardware = records[0]["versions"], records[0]["hardware"]
        machines[texts.machine.format(torch=versions["torch"], **hardware)] = None
    return "\n".join([*lines, "", texts.between.join([texts.note, *machines])])


def row(
    texts: Texts, recipe: str, results: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]
) -> str:
    """One line of the table: a recipe over its seeds."""
    parts = read_defaults(recipe)
    split = "test" if results[0]["test"] else "val"
    accuracy = texts.accuracy.format(
        mean=mean_and_deviation([100 * result[split]["acc"] for result in results], 2),
        split=texts.splits[split],
        n=len(results),
    )
    seconds = texts.seconds.format(mean=mean_and_deviation([duration(r) for r in records], 0))
    hardware = records[0]["hardware"]
    if hardware["threads"] != hardware["cores"]:
        seconds += texts.threads.format(threads=hardware["threads"])
    tutorial = texts.tutorials.get(recipe, "-")
    cells = [f"`{recipe}`", parts["model"], parts["data"], accuracy, seconds, tutorial]
    return f"| {' | '.join(cells)} |"


def duration(record: dict[str, Any]) -> float:
    """Seconds that a run took, including the parts before it was resumed."""
    total = 0.0
    for part in [record, *record["earlier"]]:
        start, end = (datetime.fromisoformat(part[name]) for name in ("start", "end"))
        total += (end - start).total_seconds()
    return total


def read_defaults(recipe: str) -> dict[str, str]:
    """The choices of a recipe by group, such as {"model": "lenet"}."""
    path = ROOT / "conf" / "experiment" / f"{recipe}.yaml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return {
        group.removeprefix("override /"): choice
        for entry in defaults
        for group, choice in entry.items()
    }


def mean_and_deviation(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def with_table(text: str, texts: Texts) -> str:
    """A page with the table between its two comments."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table(texts)}\n{END}{after}"


if __name__ == "__main__":
    main()
