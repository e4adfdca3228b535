"""format=hub: a folder that src.load and timm read, with a model card; hostile folders refused."""

import json
from pathlib import Path

import pytest
import torch
from helpers import composed, random_images

import src
from src.engine.export import export
from src.errors import UserError
from src.models import Timm
from src.runs.checkpoint_file import save

pytest.importorskip("safetensors")


def run_export(checkpoint: Path, folder: Path) -> Path:
    cfg = composed([], "export")
    cfg.update({"ckpt": str(checkpoint), "format": "hub", "output": str(folder)})
    export(cfg)
    return folder


@pytest.fixture(scope="module")
def hub(finished_run, tmp_path_factory) -> Path:
    return run_export(finished_run, tmp_path_factory.mktemp("hub") / "net")


def test_the_folder_gives_the_network_of_the_checkpoint(hub, finished_run):
    assert {file.name for file in hub.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    before, after = src.load(finished_run), src.load(hub)
    images = torch.from_numpy(random_images(3, before.channels, before.image_size))
    with torch.inference_mode():
        assert torch.equal(before(images), after(images))
    assert after.classes == before.classes


def test_the_card_has_the_results_of_the_run(hub, finished_run):
    card = (hub / "README.md").read_text()
    test = json.loads((finished_run / "results.json").read_text())["test"]
    interval = f"{test['acc_low']:.4f} to {test['acc_high']:.4f}"
    assert f"{test['acc']:.4f} | {interval}" in card
    assert "on Digits" in card and card.count("\n| 7 |") == 1
    assert str(finished_run) not in card + (hub / "config.json").read_text()


def test_results_of_another_checkpoint_are_not_in_the_card(finished_run, tmp_path):
    card = run_export(finished_run / "checkpoints" / "last.ckpt", tmp_path / "net") / "README.md"
    assert "No results of this checkpoint" in card.read_text()


def test_a_card_of_the_user_is_not_replaced(lenet_checkpoint, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="was not written by export.py"):
        run_export(lenet_checkpoint, tmp_path)


def test_timm_reads_its_networks_and_names_from_strangers_are_no_markup(tmp_path):
    timm = pytest.importorskip("timm")
    network = Timm(3, 2, "test_resnet")
    spec = {"_target_": "src.models.Timm", "name": "test_resnet", "in_channels": 3}
    classes = ["[a](http://evil.org)", "<b>|x\n# c"]
    description = {
        "model": spec | {"num_classes": 2, "weights": "/home/me/w.pt"},
        "classes": classes,
        "channels": 3,
        "image_size": 64,
        "resize": "crop",
        "mean": [0.4] * 3,
        "std": [0.2] * 3,
    }
    weights = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    save({"state_dict": weights, "description": description}, tmp_path / "net.ckpt")
    folder = run_export(tmp_path / "net.ckpt", tmp_path / "hub")
    card = (folder / "README.md").read_text()
    assert "\\[a\\]\\(http\\://evil.org\\), \\<b\\>\\|x\\\\n\\# c." in card
    assert "/home" not in card + (folder / "config.json").read_text()

    read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(read(images), network.eval()(images))
        assert torch.equal(src.load(folder).model(images), read(images))
    config = timm.data.resolve_model_data_config(read)
    assert list(config["input_size"]) == [3, 64, 64] and config["crop_mode"] == "center"
    assert read.pretrained_cfg["label_names"] == classes


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["description"] |= changes
    path.write_text(json.dumps(config))


HOSTILE = {
    "names 'os.system'": lambda f: change(f, model={"_target_": "os.system", "command": "id"}),
    "is not loaded: image_size": lambda f: change(f, image_size=10**9),
    "Infinity|finite|mean": lambda f: change(f, mean="x"),
    "another architecture": lambda f: change(
        f, model={"_target_": "src.models.LeNet", "in_channels": 1, "num_classes": 10**9}
    ),
    "is no folder of export.py": lambda f: (f / "config.json").write_text("[" * 100_000),
    "has no description": lambda f: (f / "config.json").write_text("{}"),
    "hub: ": lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 1000),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_folders(words, hub, tmp_path):
    for file in hub.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    HOSTILE[words](tmp_path)
    with pytest.raises(UserError, match=words) as caught:
        src.load(tmp_path)
    assert "\n" not in caught.value.problem + caught.value.remedy
