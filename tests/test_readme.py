"""The README: its set-up commands, its translation, its results, and all of its commands."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_the_first_two_blocks_install_and_run_in_one_line_each():
    (first, train), (second, test) = BLOCKS[:2]
    assert first == second == "bash"
    assert train.count("\n") == test.count("\n") == 1
    assert train.strip().endswith("train.py")
    assert "pytest" in test


@pytest.mark.parametrize(
    "part",
    [
        r"```(\w+)\n(.*?)```",
        r"^(#+) ",
        r"`((?:src|conf|notebooks)/[^`]*)`",
        r"`(python [^`]*)`",
        r"`([\w/]+=[^`]*)`",
    ],
    ids=["code blocks", "headings", "files", "commands", "settings"],
)
def test_the_chinese_readme_has_the_same(part):
    found = [re.findall(part, page, re.DOTALL | re.MULTILINE) for page in (CHINESE, README)]
    assert found[0] == found[1]


def test_the_chinese_readme_has_the_same_links():
    chinese, english = (set(re.findall(r"\]\(([^)]*)\)", page)) for page in (CHINESE, README))
    translated = {link.replace("docs/your_own.zh-CN.md", "docs/your_own.md") for link in chinese}
    assert translated - {"README.md"} == english - {"README.zh-CN.md"}


def test_the_results_are_those_of_the_committed_runs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import publish

    assert publish.with_table(README, publish.ENGLISH) == README
    assert publish.with_table(CHINESE, publish.CHINESE) == CHINESE
    for path in publish.RESULTS.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'["=](/|[A-Z]:\\\\)', text), f"{path} names a folder of a machine"


def copy_project(folder: Path) -> None:
    """Copy what commands need, with the network and the data set of the README in it."""
    for name in ("src", "conf", "hydra_plugins"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    added = re.findall(r"`((?:src|conf)/\w+/my_\w+\.\w+)`.*?```\w+\n(.*?)```", README, re.DOTALL)
    assert len(added) == 4
    for name, text in added:
        (folder / name).write_text(text, encoding="utf-8")


def write_data(folder: Path, cifar_root: Path, dog_cat_root: Path) -> None:
    (folder / "data").mkdir()
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 64, 64), dtype=np.uint8)
        labels = np.arange(40) % 2
        np.savez(folder / "data" / f"my_data_{split}.npz", images=images, labels=labels)
    name = "cifar-10-batches-py"
    shutil.copytree(cifar_root / name, folder / "data" / name)
    shutil.copytree(dog_cat_root, folder / "photos")


def completed_command(command: str, folder: Path) -> list[str]:
    """The words of a command with its names filled in, and shorter training."""
    _, script, *arguments = shlex.split(command)
    runs = sorted(folder.glob("runs/*_image_folder/results.json"))
    filled_in = {
        "NAME": runs[0].parent.name if runs else "",
        "FOLDER": str(folder / "photos"),
        "accelerator=gpu": "accelerator=cpu",
        "n_trials=20": "n_trials=2",
    }
    for word, value in filled_in.items():
        arguments = [argument.replace(word, value) for argument in arguments]
    if script not in ("train.py", "search.py") or "find_lr=true" in arguments:
        return [script, *arguments]
    typed = {argument.partition("=")[0] for argument in arguments}
    if "resume" in typed:
        typed.add("trainer.max_epochs")
    shorter = [word for word in QUICK if word.partition("=")[0] not in typed]
    return [script, *arguments, *shorter]


@pytest.mark.slow
def test_every_command_runs(tmp_path, cifar_root, dog_cat_root):
    """All of them, one after the other, in a copy of the project."""
    pytest.importorskip("optuna")
    pytest.importorskip("onnxruntime")
    from src.engine.export_formats import ONNX_MIN_TORCH, torch_version

    if torch_version() < ONNX_MIN_TORCH:
        pytest.skip("this torch is too old to export ONNX")
    copy_project(tmp_path)
    write_data(tmp_path, cifar_root, dog_cat_root)
    in_blocks = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    commands = [line for line in in_blocks if line.startswith("python ")]
    commands += re.findall(r"`(python \w+\.py [^`]*)`", README)
    assert len(commands) >= 12
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    for command in commands:
        if "data=torchvision" in command:  # it downloads
            continue
        done = subprocess.run(
            [sys.executable, *completed_command(command, tmp_path)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    assert len(list(tmp_path.glob("sweeps/*/summary.md"))) == 4  # three sweeps and a search
    for pattern in (
        "runs/*/checkpoints/best.onnx",
        "runs/*_evaluate/results.json",
        "runs/*_predict/predictions.csv",
        "sweeps/search_*/search.html",
    ):
        assert list(tmp_path.glob(pattern)), pattern


@pytest.mark.slow
def test_the_notebook_snippet_runs(tmp_path, cifar_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = [text for kind, text in BLOCKS if kind == "python" and "L.Trainer" in text]
    shorter = snippet.replace("max_epochs=3", "max_epochs=1, accelerator='cpu', logger=False")
    exec(shorter.replace('root="data"', f"root={str(cifar_root)!r}"), {})
    run = tmp_path / "runs" / "by_hand"
    for name in ("results.json", "metrics.csv", "predictions.csv", "report.html"):
        assert (run / name).is_file()
    assert (run / "checkpoints" / "best.ckpt").is_file()
