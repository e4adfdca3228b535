"""Exported networks compute what the trained ones compute, and exist only if they do."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import composed, random_images

import src
from src.engine import export as module
from src.engine import export_formats
from src.errors import UserError
from src.models import SimpleV3, Torchvision
from src.runs.checkpoint_file import save

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OLD_TORCH = export_formats.torch_version() < export_formats.ONNX_MIN_TORCH
ONNX = pytest.param("onnx", marks=pytest.mark.skipif(OLD_TORCH, reason="this torch is too old"))


@pytest.fixture
def checkpoint(lenet_checkpoint, tmp_path) -> Path:
    """A copy of a checkpoint in a folder of its own."""
    folder = tmp_path / "猫, a=(1)"
    folder.mkdir()
    return Path(shutil.copy(lenet_checkpoint, folder / "best.ckpt"))


def run_export(checkpoint: Path, **settings: object) -> Path:
    """`python export.py ...` in this process."""
    cfg = composed([], "export")
    cfg.ckpt = str(checkpoint)
    cfg.update(settings)
    return module.export(cfg)


def load_exported(path: Path):
    """Load the file without this project: a function of uint8 arrays, and the metadata."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        (inputs,), (outputs,) = session.get_inputs(), session.get_outputs()
        assert (inputs.name, inputs.type) == ("images", "tensor(uint8)")
        assert outputs.name == "logits" and isinstance(inputs.shape[0], str)
        metadata = session.get_modelmeta().custom_metadata_map
        return lambda images: session.run(None, {"images": images})[0], metadata
    extra = {"metadata.json": ""}
    network = torch.export.load(path, extra_files=extra).module()
    metadata = json.loads(extra["metadata.json"])
    return lambda images: network(torch.from_numpy(images)).detach().numpy(), metadata


def largest_difference(compute, classifier, images: np.ndarray) -> float:
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(images)).numpy()
    return np.abs(compute(images) - expected).max()


def untrained(network: torch.nn.Module, spec: dict, path: Path) -> Path:
    """A checkpoint of an untrained network that does not name its data."""
    with torch.no_grad():  # statistics other than those that every network starts with
        for name, tensor in network.state_dict().items():
            if "running" in name:
                tensor.uniform_(0.5, 1.5)
    description = {
        "model": spec,
        "classes": ["猫", "dog", "c"],
        "channels": 3,
        "image_size": 32,
        "mean": [0.4] * 3,
        "std": [0.2] * 3,
    }
    weights = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    save({"state_dict": weights, "description": description}, path)
    return path


@pytest.mark.parametrize("kind", [ONNX, "pt2"])
def test_the_exported_file_computes_the_same_logits_from_pixels(checkpoint, kind, caplog):
    caplog.set_level("INFO")
    path = run_export(checkpoint, format=kind)
    assert path == checkpoint.with_suffix(f".{kind}")
    beside = {"preprocess.json"} | ({"infer.py"} if kind == "onnx" else set())
    names = {file.name for file in checkpoint.parent.iterdir()}
    assert names == beside | {checkpoint.name, path.name}
    compute, metadata = load_exported(path)
    classifier = src.load(checkpoint)
    for count in (1, 3, 65):
        images = random_images(count, 1, 32, count)
        assert largest_difference(compute, classifier, images) <= 1e-4
    keys = ("classes", "channels", "image_size")
    values = {key: metadata[key] if kind == "pt2" else json.loads(metadata[key]) for key in keys}
    assert values == {"classes": list("0123456789"), "channels": 1, "image_size": 32}
    assert metadata["resize"] == "stretch" and "uint8" in metadata["input"]
    assert "on random images" in caplog.text
    assert "on 64 test images of its own data" in caplog.text
    assert caplog.messages[-1] == str(path)


def test_batch_norm_and_dropout_are_in_evaluation_mode(tmp_path, caplog):
    caplog.set_level("INFO")
    spec = {"_target_": "src.models.SimpleV3", "in_channels": 3, "num_classes": 3, "image_size": 32}
    checkpoint = untrained(SimpleV3(3, 3), spec, tmp_path / "net.ckpt")
    path = run_export(checkpoint, format="pt2", output=str(tmp_path))
    compute, metadata = load_exported(path)
    images = random_images(4, 3, 32)
    assert largest_difference(compute, src.load(checkpoint), images) <= 1e-4
    assert metadata["classes"] == ["猫", "dog", "c"]
    assert "does not name its data" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ONNX, "pt2"])
@pytest.mark.parametrize(
    "name", ["resnet18", "vgg16", "mobilenet_v3_small", "convnext_tiny", "efficientnet_b0"]
)
def test_larger_networks(name, kind, tmp_path):
    spec = {"_target_": "src.models.Torchvision", "in_channels": 3, "num_classes": 3, "name": name}
    checkpoint = untrained(Torchvision(3, 3, name), spec, tmp_path / "net.ckpt")
    assert run_export(checkpoint, format=kind).is_file()


def test_a_different_network_is_not_kept(checkpoint, monkeypatch):
    checkpoint.with_suffix(".pt2").write_text("of an earlier export")
    classifier = src.load(checkpoint)

    def read(path):
        return lambda images: classifier(images) + 2e-3

    monkeypatch.setitem(export_formats.READERS, "pt2", read)
    words = "differs from the trained one by .* on random images"
    with pytest.raises(UserError, match=words):
        run_export(checkpoint, format="pt2")
    assert len(list(checkpoint.parent.iterdir())) == 2
    assert checkpoint.with_suffix(".pt2").read_text() == "of an earlier export"


def test_what_cannot_be_exported_keeps_its_traceback(checkpoint, monkeypatch):
    def forward(self, images):
        if images.sum() > 0:
            return self.classifier(self.features(images))
        return images

    monkeypatch.setattr("src.models.LeNet.forward", forward)
    with pytest.raises(UserError, match="cannot be exported") as caught:
        run_export(checkpoint, format="pt2")
    assert caught.value.__cause__ is not None


def test_missing_packages_are_named(checkpoint, monkeypatch):
    find_spec = importlib.util.find_spec

    def without_onnxruntime(name, *rest):
        return None if name == "onnxruntime" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_onnxruntime)
    with pytest.raises(UserError) as caught:
        run_export(checkpoint)
    assert "onnxruntime" in caught.value.problem and "onnxscript" not in caught.value.problem
    assert 'pip install -e ".[export]"' in caught.value.remedy


def test_a_torch_that_is_too_old(checkpoint, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    with pytest.raises(UserError, match=r"needs torch 2.8; this is 2.6.0"):
        run_export(checkpoint)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "h5"}, "format=h5"),
        ({"output": "net.pth"}, "does not end in .pt2"),
        ({"path": "nowhere"}, "no images at path=nowhere"),
        ({"ckpt": "nowhere.ckpt"}, "There is no checkpoint nowhere.ckpt"),
    ],
)
def test_settings_errors(checkpoint, settings, words):
    with pytest.raises(UserError, match=words):
        run_export(checkpoint, **{"format": "pt2"} | settings)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_own_images(checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(UserError, match="None of 1 files of .* can be read"):
        run_export(checkpoint, format="pt2", path=str(checkpoint))
    from PIL import Image

    photos = tmp_path / "photos (1)"
    photos.mkdir()
    Image.fromarray(random_images(1, 1, 50)[0, 0]).save(photos / "a.jpg")
    (photos / "broken.jpg").write_bytes(b"")
    output = tmp_path / "new" / "net=1,2.pt2"
    assert run_export(checkpoint, format="pt2", path=str(photos), output=str(output)) == output
    assert f"on 1 images of {photos}" in caplog.text


def test_missing_data_are_not_downloaded(checkpoint, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(
        "src.datamodules.CIFAR10DataModule.prepare_data", lambda self: pytest.fail("a download")
    )
    stored = torch.load(checkpoint, weights_only=True)
    target = "src.datamodules.CIFAR10DataModule"
    stored["description"]["config"]["data"] = {"_target_": target, "root": str(tmp_path / "gone")}
    torch.save(stored, checkpoint)
    assert run_export(checkpoint, format="pt2").is_file()
    assert "its own data cannot be read here" in caplog.text
