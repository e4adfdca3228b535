"""The README: its commands do their work, its two set-up commands are one line each, its new network really is two files."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import QUICK, ROOT, composed, run_training

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()] + re.findall(r"`(python \w+\.py [^`]*)`", README)


def test_the_first_two_blocks_set_everything_up_in_one_line_each():
    (first, train), (second, test) = BLOCKS[:2]
    assert first == second == "bash" and train.count("\n") == test.count("\n") == 1
    assert train.strip().endswith("train.py") and "pytest" in test


def test_the_files_named_in_the_map_exist():
    for name in re.findall(r"`((?:src|conf)/[\w./]+)`", README):
        assert (ROOT / name).exists() or "my_net" in name or "my_data" in name, name


@pytest.mark.parametrize(
    "part",
    [
        r"```(\w+)\n(.*?)```",
        r"<!-- results.*?end of results -->",
        r"^(#+) ",
        r"`((?:src|conf|hydra_plugins)/[^`]*)`",
        r"\]\(([^)]*)\)",
        r"`(python [^`]*)`",
    ],
)
def test_the_chinese_readme_is_in_step(part):
    """The same code, results, headings by their level, files in the map, links and commands, in the same order."""
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert re.findall(part, chinese, re.S | re.M) == re.findall(part, README, re.S | re.M)


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
        assert images.shape[1:] == (1, 64, 64) and data.sizes() == {"train": 36, "val": 4, "test": 10} and data.has_test
        (tmp_path / "my_data_test.npz").unlink()
        searched = [f"hydra.searchpath=[file://{tmp_path}/conf]", "data=my_data", f"data.root={tmp_path}", "model=lenet"]
        results = run_training(tmp_path / "run", *searched, "trainer.max_epochs=1")
        assert results["status"] == "completed" and results["test"] is None
    finally:
        sys.path.remove(str(tmp_path))


def test_the_network_of_the_readme_works():
    import torch

    code = next(text for kind, text in BLOCKS if kind == "python" and "class MyNet" in text)
    namespace: dict = {}
    exec(code, namespace)
    assert namespace["MyNet"](3, 10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_every_command_does_its_work(tmp_path, cifar_root, dog_cat_root):
    """All of them, one after the other, in a copy of the project that has the README's own network and data set in it."""
    import numpy as np

    pytest.importorskip("optuna")
    pytest.importorskip("onnxruntime")
    from src.export import OLDEST_FOR_ONNX, _torch_version

    if _torch_version() < OLDEST_FOR_ONNX:
        pytest.skip("this torch is too old to export ONNX")
    house = tmp_path / "house"
    for name in ("src", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, house)
    listed = re.findall(r"`((?:src|conf)/\w+/my_\w+\.\w+)`.*?```\w+\n(.*?)```", README, re.S)
    assert len(listed) == 4
    for name, text in listed:
        (house / name).write_text(text)
    (house / "data").mkdir()
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 64, 64), dtype=np.uint8)
        np.savez(house / "data" / f"my_data_{split}.npz", images=images, labels=np.arange(40) % 2)
    shutil.copytree(cifar_root / "cifar-10-batches-py", house / "data" / "cifar-10-batches-py")
    shutil.copytree(dog_cat_root, house / "photos")
    shorter = {"train.py": QUICK, "search.py": QUICK}
    started = [command for command in COMMANDS if command.startswith("python ")]
    assert len(started) >= 14
    for command in started:
        _, script, *arguments = shlex.split(command)
        run = next((path.parent.name for path in (house / "runs").glob("*_image_folder/results.json")), "")
        known = {"NAME": run, "FOLDER": str(dog_cat_root), "accelerator=gpu": "accelerator=cpu", "n_trials=20": "n_trials=2"}
        for word, stand_in in known.items():
            arguments = [argument.replace(word, stand_in) for argument in arguments]
        typed = {a.partition("=")[0] for a in arguments} | ({"trainer.max_epochs"} if "resume=last" in arguments else set())
        added = [a for a in shorter.get(script, []) if a.partition("=")[0] not in typed and "check=data" not in arguments]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, script, *arguments, *added], cwd=house, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    assert len(list((house / "sweeps").glob("*/summary.md"))) == 3
    for pattern in ("runs/*/checkpoints/best.onnx", "evaluations/*/results.json", "predictions/*/predictions.csv", "studies/*/search.html"):
        assert list(house.glob(pattern)), pattern
