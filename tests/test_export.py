"""Exported networks compute what the trained ones compute, describe themselves, and exist only if they do."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_two_lines, composed, pictures, run_script
from PIL import Image

import src
from src import export as module
from src.errors import UserError
from src.models import SimpleV3, Torchvision

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def checkpoint(finished_run, tmp_path) -> Path:
    """A copy of a trained network's file, in a folder of its own."""
    folder = tmp_path / "猫, a=(1)"
    folder.mkdir()
    return Path(shutil.copy(finished_run / "checkpoints" / "best.ckpt", folder))


def exported(checkpoint: Path, **settings: object) -> Path:
    """`python export.py ...` in this process."""
    cfg = composed([], "export")
    cfg.ckpt = str(checkpoint)
    cfg.update(settings)
    return module.export(cfg)


def reload(path: Path):
    """What a program without this project does with the file: a function of uint8 arrays, and the metadata."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.type, given.name) == ("images", "tensor(uint8)", "logits") and isinstance(taken.shape[0], str)
        return lambda images: session.run(None, {"images": images})[0], session.get_modelmeta().custom_metadata_map
    extra = {"metadata.json": ""}
    network = torch.export.load(path, extra_files=extra).module()
    return lambda images: network(torch.from_numpy(images)).detach().numpy(), json.loads(extra["metadata.json"])


ONNX = pytest.param("onnx", marks=pytest.mark.skipif(module._torch_version() < module.OLDEST_FOR_ONNX, reason="this torch is too old"))


@pytest.mark.parametrize("kind", [ONNX, "pt2"])
def test_the_exported_file_computes_the_same_from_bytes(checkpoint, kind, caplog):
    caplog.set_level("INFO")
    path = exported(checkpoint, format=kind)
    assert path == checkpoint.with_suffix(f".{kind}") and len(list(checkpoint.parent.iterdir())) == 2
    compute, metadata = reload(path)
    net = src.load(checkpoint)
    for n in (1, 3, 65):
        images = pictures(n, 1, 32, n)
        with torch.inference_mode():
            assert np.abs(compute(images) - net(torch.from_numpy(images)).numpy()).max() <= 1e-4
    values = {key: metadata[key] if kind == "pt2" else json.loads(metadata[key]) for key in ("classes", "channels", "image_size")}
    assert values == {"classes": list("0123456789"), "channels": 1, "image_size": 32}
    assert metadata["resize"] == "stretch" and "uint8" in metadata["input"]
    assert "on random pixels" in caplog.text and "on 64 test pictures of its own data" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(module._torch_version() < module.OLDEST_FOR_ONNX, reason="this torch is too old")
def test_from_the_shell_with_own_pictures_and_quietly(checkpoint, tmp_path):
    photos, elsewhere = tmp_path / "photos (1)", tmp_path / "elsewhere"
    photos.mkdir()
    elsewhere.mkdir()
    Image.fromarray(pictures(1, 3, 50)[0].transpose(1, 2, 0)).save(photos / "a.jpg")
    (photos / "broken.jpg").write_bytes(b"")
    output = tmp_path / "new" / "net=1,2.onnx"
    result = run_script("export.py", f"ckpt={checkpoint}", f"path={photos}", f"output={output}", cwd=elsewhere)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "on 1 pictures of" in result.stdout and len(result.stdout.splitlines()) == 5 and result.stdout.endswith(f"{output}\n")
    assert output.is_file() and not list(elsewhere.iterdir())


def fresh(network: torch.nn.Module, spec: dict, path: Path) -> Path:
    """A checkpoint file of an untrained network without data."""
    with torch.no_grad():  # statistics and weights other than those that every network starts with
        for name, tensor in network.state_dict().items():
            if "running" in name:
                tensor.uniform_(0.5, 1.5)
    description = {"model": spec, "classes": ["猫", "dog", "c"], "channels": 3, "image_size": 32, "mean": [0.4] * 3, "std": [0.2] * 3}
    weights = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": weights, "description": description}, path)
    return path


def test_batch_norm_and_dropout_are_as_in_evaluation(tmp_path, caplog):
    caplog.set_level("INFO")
    spec = {"_target_": "src.models.SimpleV3", "in_channels": 3, "num_classes": 3, "image_size": 32}
    checkpoint = fresh(SimpleV3(3, 3), spec, tmp_path / "net.ckpt")
    path = exported(checkpoint, format="pt2", output=str(tmp_path))
    compute, metadata = reload(path)
    images = pictures(4, 3, 32)
    with torch.inference_mode():
        assert np.abs(compute(images) - src.load(checkpoint)(torch.from_numpy(images)).numpy()).max() <= 1e-4
    assert metadata["classes"] == ["猫", "dog", "c"] and "no real pictures" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vgg16", "mobilenet_v3_small", "convnext_tiny", "efficientnet_b0"])
@pytest.mark.parametrize("kind", [ONNX, "pt2"])
def test_larger_networks(name, kind, tmp_path):
    spec = {"_target_": "src.models.Torchvision", "in_channels": 3, "num_classes": 3, "name": name}
    assert exported(fresh(Torchvision(3, 3, name), spec, tmp_path / "net.ckpt"), format=kind).is_file()


def test_what_comes_out_different_is_not_kept(checkpoint, monkeypatch):
    checkpoint.with_suffix(".pt2").write_text("of an earlier export")
    monkeypatch.setitem(module.READERS, "pt2", lambda path: lambda images: src.load(checkpoint)(images) + 2e-3)
    with pytest.raises(UserError, match="differs from the trained one by .* on random pixels"):
        exported(checkpoint, format="pt2")
    assert len(list(checkpoint.parent.iterdir())) == 2
    assert checkpoint.with_suffix(".pt2").read_text() == "of an earlier export"


def test_packages_that_are_missing_are_named(checkpoint, monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else original(name, *rest))
    with pytest.raises(UserError) as error:
        exported(checkpoint)
    assert "onnxruntime" in error.value.problem and "onnxscript" not in error.value.problem
    assert 'pip install -e ".[export]"' in error.value.remedy


def test_a_torch_that_is_too_old_is_told(checkpoint, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(UserError, match="needs torch 2.8; this is 2.6.0"):
        exported(checkpoint)


def test_mistakes(checkpoint, tmp_path):
    for settings, words in (
        ({"format": "h5"}, "format=h5"),
        ({"output": "net.pth"}, "does not end in .pt2"),
        ({"path": "nowhere"}, "There is no nowhere"),
        ({"path": str(checkpoint)}, "no picture"),
    ):
        with pytest.raises(UserError, match=words):
            exported(checkpoint, **{"format": "pt2"} | settings)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert_two_lines(run_script("export.py", cwd=tmp_path), "ckpt= is missing")


def test_data_that_have_gone_are_not_downloaded(checkpoint, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("src.datamodules.cifar10.fetch", lambda *_: pytest.fail("a download"))
    stored = torch.load(checkpoint, weights_only=True)
    stored["description"]["config"]["data"] = {"_target_": "src.datamodules.CIFAR10DataModule", "root": str(tmp_path / "gone")}
    torch.save(stored, checkpoint)
    assert exported(checkpoint, format="pt2").is_file()
    assert "its own data cannot be read here" in caplog.text
