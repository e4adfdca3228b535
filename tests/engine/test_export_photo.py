"""resize=true: the graph resizes photos as Pillow does; precision=fp16 with and without it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import composed
from PIL import Image
from torch import nn

from src.datamodules.decode import to_array
from src.engine.evaluate import read_exported
from src.engine.export import export
from src.engine.export_photo import PhotoClassifier
from src.errors import UserError
from src.inference import Classifier

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_graph_resizes_as_pillow_does(resize, channels):
    mean = [0.3, 0.4, 0.5][:channels]
    description = {"classes": ["a"], "channels": channels, "image_size": 37, "resize": resize}
    classifier = Classifier(nn.Identity(), description | {"mean": mean, "std": mean})
    photo = PhotoClassifier(classifier)
    random = np.random.default_rng(0)
    for height, width in ((90, 121), (300, 40), (37, 37), (20, 31), (2, 300)):
        pixels = random.integers(0, 256, (height, width, channels), np.uint8)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        expected = to_array(image, 37, channels, resize, mean).astype(int)
        difference = np.abs(photo.prepare(torch.from_numpy(pixels))[0].numpy() - expected)
        # Pillow 13 takes the rows of some tall photos first, and then rounds otherwise.
        assert difference.max() <= 1, (height, width)
        assert difference.mean() < (0.4 if height > 2 * width else 0.02), (height, width)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 121, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).resize((640, 480)).save(folder / "large.jpg", exif=exif)
    Image.fromarray(noise).save(folder / "alpha.png")
    return folder


def run_export(checkpoint: Path, folder: Path, **settings: object) -> tuple[Path, dict]:
    cfg = composed([], "export")
    cfg.update({"ckpt": str(checkpoint), "output": str(folder), **settings})
    return export(cfg), json.loads((folder / "preprocess.json").read_text())


@pytest.mark.slow
def test_photos_of_any_size_are_predicted_as_files_are(lenet_checkpoint, photos, tmp_path, caplog):
    caplog.set_level("INFO")
    settings = {"path": str(photos), "resize": True, "precision": "fp16"}
    path, stored = run_export(lenet_checkpoint, tmp_path, **settings)
    assert path.name == "lenet.fp16.photo.onnx"
    assert stored["parity"].keys() == {"infer.py", "the graph on photos of full size"}
    for row in stored["parity"].values():
        assert row["files"] == 2 and row["max_probability_difference"] < 0.1
    assert stored["parity"]["infer.py"]["max_probability_difference"] < 0.01
    assert "returns probabilities" in caplog.text and "as fp16" in caplog.text
    with pytest.raises(UserError, match="takes photos of any size"):
        read_exported(path)


@pytest.mark.slow
def test_fp16_is_half_as_large_and_measured(lenet_checkpoint, tmp_path):
    path, stored = run_export(lenet_checkpoint, tmp_path, precision="fp16")
    measured = stored["fp16"]
    assert 0 < measured["max_probability_difference"] < 0.01
    assert measured["fp16"]["megabytes"] < 0.7 * measured["float32"]["megabytes"]
    assert abs(measured["fp16"]["val_correct"] - measured["float32"]["val_correct"]) < 5
    assert read_exported(path)[1]["classes"] == list("0123456789")


@pytest.mark.slow
def test_a_network_too_large_for_fp16_is_refused(lenet_checkpoint, tmp_path):
    stored = torch.load(shutil.copy(lenet_checkpoint, tmp_path / "net.ckpt"), weights_only=True)
    for name, tensor in stored["state_dict"].items():
        if tensor.ndim == 4:
            stored["state_dict"][name] = 3000 * tensor
    torch.save(stored, tmp_path / "net.ckpt")
    with pytest.raises(UserError, match="its values are too large"):
        run_export(tmp_path / "net.ckpt", tmp_path, precision="fp16")


@pytest.mark.parametrize("settings", [{"format": "pt2"}, {"precision": "int8"}, {"format": "hub"}])
def test_resize_that_an_export_does_not_have(lenet_checkpoint, settings, tmp_path):
    with pytest.raises(UserError, match="resize=true is not possible"):
        run_export(lenet_checkpoint, tmp_path, resize=True, **settings)
