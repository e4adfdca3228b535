"""The README's commands: they compose, its two set-up commands are one line each, and its new network really is two files."""

import re

import pytest
from conftest import ROOT, composed

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()] + re.findall(r"`(python \w+\.py [^`]*)`", README)
CONFIGS = {"train.py": "config", "evaluate.py": "evaluate", "search.py": "search", "find_lr.py": "find_lr"}


def test_the_first_two_blocks_set_everything_up_in_one_line_each():
    (first, train), (second, test) = BLOCKS[:2]
    assert first == second == "bash" and train.count("\n") == test.count("\n") == 1
    assert train.strip().endswith("train.py") and "pytest" in test


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python ") and "--" not in c])
def test_every_command_composes(command):
    _, script, *arguments = command.split()
    overrides = [a for a in arguments if a != "-m" and not a.startswith("model=my_net") and not a.startswith("model.width")]
    for override in overrides:
        composed([override.split(",")[0]] if "=" in override else [override], CONFIGS[script])


def test_the_files_named_in_the_map_exist():
    for name in re.findall(r"`((?:src|conf)/[\w./]+)`", README):
        assert (ROOT / name).exists() or "my_net" in name, name


def test_the_network_of_the_readme_works():
    import torch

    code = next(text for kind, text in BLOCKS if kind == "python" and "class MyNet" in text)
    namespace: dict = {}
    exec(code, namespace)
    assert namespace["MyNet"](3, 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
