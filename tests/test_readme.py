"""The README's commands: they compose, its two set-up commands are one line each, and its new network really is two files."""

import re
import sys

import pytest
from conftest import ROOT, composed

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()] + re.findall(r"`(python \w+\.py [^`]*)`", README)
CONFIGS = {"train.py": "config"} | {f"{name}.py": name for name in ("evaluate", "predict", "export", "rerun", "search", "find_lr")}


def test_the_first_two_blocks_set_everything_up_in_one_line_each():
    (first, train), (second, test) = BLOCKS[:2]
    assert first == second == "bash" and train.count("\n") == test.count("\n") == 1
    assert train.strip().endswith("train.py") and "pytest" in test


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ") and "--" not in c])
def test_every_command_composes(command):
    _, script, *arguments = command.split()
    overrides = [a for a in arguments if a != "-m" and not a.startswith(("model=my_net", "model.width", "data=my_data", "hydra."))]
    for override in overrides:
        composed([override.split(",")[0]] if "=" in override else [override], CONFIGS[script])


def test_the_files_named_in_the_map_exist():
    for name in re.findall(r"`((?:src|conf)/[\w./]+)`", README):
        assert (ROOT / name).exists() or "my_net" in name or "my_data" in name, name


def test_the_chinese_readme_shows_the_same_commands_and_files():
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert re.findall(r"```(\w+)\n(.*?)```", chinese, re.S) == BLOCKS
    assert re.findall(r"<!-- results.*?end of results -->", chinese, re.S) == re.findall(r"<!-- results.*?end of results -->", README, re.S)


def test_the_table_of_results_is_what_the_runs_say():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import publish

    assert publish.with_table(README) == README
    for path in publish.RESULTS.rglob("*.json"):
        assert not re.search(r'["=](/|[A-Z]:\\\\)', path.read_text(encoding="utf-8")), f"{path} names a folder of some machine"


def test_the_data_set_of_the_readme_works(tmp_path):
    import numpy as np

    from src.build import build

    code = next(text for kind, text in BLOCKS if kind == "python" and "class MyDataModule" in text)
    yaml = next(text for kind, text in BLOCKS if kind == "yaml" and "MyDataModule" in text)
    for split, n in (("train", 40), ("test", 10)):
        images = np.random.default_rng(0).integers(0, 256, (n, 1, 64, 64), dtype=np.uint8)
        np.savez(tmp_path / f"my_data_{split}.npz", images=images, labels=np.arange(n) % 2)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "my_data.yaml").write_text(yaml.replace("src.datamodules.my_data", "my_data_of_the_readme"))
    (tmp_path / "my_data_of_the_readme.py").write_text(code)
    sys.path.insert(0, str(tmp_path))
    try:
        data, _ = build(composed([f"hydra.searchpath=[file://{tmp_path}/conf]", "data=my_data", f"data.root={tmp_path}"]))
        data.setup()
        images, _ = next(iter(data.train_dataloader()))
        assert images.shape[1:] == (1, 64, 64) and data.sizes() == {"train": 36, "val": 4, "test": 10}
    finally:
        sys.path.remove(str(tmp_path))


def test_the_network_of_the_readme_works():
    import torch

    code = next(text for kind, text in BLOCKS if kind == "python" and "class MyNet" in text)
    namespace: dict = {}
    exec(code, namespace)
    assert namespace["MyNet"](3, 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
