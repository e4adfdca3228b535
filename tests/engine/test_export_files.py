"""What lies beside an export: infer.py prepares and predicts files as predict.py does."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import composed
from PIL import Image

import src
from src.datamodules.decode import decode
from src.engine.export import export
from src.engine.export_files import TEMPLATE
from src.engine.exported import read_exported
from src.errors import UserError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NOISE = np.random.default_rng(0).integers(0, 256, (90, 121, 4), np.uint8)


def write_photos(folder: Path) -> list[Path]:
    """Photos of every kind that is prepared in its own way."""
    folder.mkdir()
    rgb, rgba = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE)
    deep = NOISE[..., 0].astype(np.uint16) * 257
    images = {
        "cmyk.jpg": rgb.convert("CMYK"),
        "grey.jpg": rgb.convert("L"),
        "large.jpg": rgb.resize((640, 480)),
        "alpha.png": rgba,
        "grey_alpha.png": rgba.convert("LA"),
        "palette.gif": rgb.convert("P"),
        "deep.png": Image.fromarray(deep),
        "deeper.tif": Image.fromarray(deep.astype(np.int32) * 3),
        "float.tif": Image.fromarray(deep.astype(np.float32) / 3),
    }
    for name, image in images.items():
        image.save(folder / name)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        rgb.save(folder / f"exif_{orientation}.jpg", exif=exif)
    rgb.convert("P").save(folder / "transparent.png", transparency=3)
    return sorted(folder.iterdir())


def load_program() -> dict:
    import runpy

    return runpy.run_path(str(TEMPLATE))


@pytest.fixture
def checkpoint(lenet_checkpoint, tmp_path) -> Path:
    folder = tmp_path / "digits run" / "checkpoints"
    folder.mkdir(parents=True)
    return Path(shutil.copy(lenet_checkpoint, folder / "best.ckpt"))


def run_export(checkpoint: Path, **settings: object) -> Path:
    cfg = composed([], "export")
    cfg.update({"ckpt": str(checkpoint), **settings})
    return export(cfg)


def test_the_program_is_short_and_imports_nothing_of_the_project():
    text = TEMPLATE.read_text()
    assert len(text.splitlines()) <= 75
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    names = {alias.name for node in imports for alias in node.names}
    froms = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    names |= {node.module for node in froms if not node.level}
    assert not [node for node in froms if node.level]
    assert names <= sys.stdlib_module_names | {"numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_program_prepares_the_same_pixels(channels, resize, tmp_path):
    prepare = load_program()["prepare"]
    formats = ["JPEG", "PNG", "GIF", "TIFF"]
    settings = {"channels": channels, "resize": resize, "image_size": 37, "formats": formats}
    mean = [0.3, 0.4, 0.5][:channels]
    settings["fill"] = [round(255 * value) for value in mean]
    photos = write_photos(tmp_path / "photos")
    assert len(photos) == 18
    for photo in photos:
        expected = decode(photo, 37, channels, resize, mean)
        actual = prepare(photo, settings)
        assert actual.dtype == np.uint8 and actual.shape == (1, channels, 37, 37)
        assert np.array_equal(actual[0], expected), photo.name


def test_the_program_gives_the_predictions_of_the_checkpoint(checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    photos = write_photos(tmp_path / "photos")
    target = tmp_path / "shipped"
    target.mkdir()
    run_export(checkpoint, path=str(photos[0].parent), output=str(target))
    assert {file.name for file in target.iterdir()} == {"best.onnx", "preprocess.json", "infer.py"}
    text = (target / "preprocess.json").read_text()
    settings = json.loads(text)
    assert settings["run"] == "digits run" and str(tmp_path) not in text
    assert settings["classes"] == list("0123456789")
    parity = settings["parity"]["infer.py"]
    assert parity["files"] == 18 and parity["flipped"] == 0
    assert parity["max_probability_difference"] < 1e-5
    assert "predict.py and infer.py on 18 files: largest difference of probabilities" in caplog.text

    command = [sys.executable, "infer.py", *map(str, photos)]
    result = subprocess.run(command, cwd=target, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and len(lines) == 18, result.stderr
    network = src.load(checkpoint)
    for photo, line in zip(photos, lines, strict=True):
        file, *classes = line.split("\t")
        probabilities, indices = network.predict(photo)[0].topk(3)
        assert file == str(photo)
        assert [cell.split()[0] for cell in classes] == [network.classes[i] for i in indices]
        shown = torch.tensor([float(cell.split()[1]) for cell in classes])
        assert (shown - probabilities).abs().max() < 1e-4


def test_a_program_of_the_user_is_not_replaced(checkpoint, tmp_path):
    (tmp_path / "infer.py").write_text("print('mine')")
    with pytest.raises(UserError, match="was not written by export.py"):
        run_export(checkpoint, output=str(tmp_path))
    assert (tmp_path / "infer.py").read_text() == "print('mine')"


def test_int8_is_measured_against_float32(checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    path = run_export(checkpoint, precision="int8", output=str(tmp_path))
    assert path == tmp_path / "best.int8.onnx"
    settings = json.loads((tmp_path / "preprocess.json").read_text())
    before, after = settings["int8"]["float32"], settings["int8"]["int8"]
    assert settings["int8"]["calibration_images"] == 200
    assert before["val_images"] == after["val_images"] > 100
    assert abs(before["val_correct"] - after["val_correct"]) < 0.1 * after["val_images"]
    assert after["megabytes"] < before["megabytes"] and after["latency_ms"] > 0
    assert "as int8" in caplog.text
    assert read_exported(path)[1]["classes"] == list("0123456789")


@pytest.mark.parametrize("settings", [{"precision": "int4"}, {"format": "pt2"}])
def test_precisions_that_a_format_does_not_have(checkpoint, settings):
    with pytest.raises(UserError, match="is unknown"):
        run_export(checkpoint, **{"precision": "int8"} | settings)


def test_another_format_has_no_program(checkpoint):
    path = run_export(checkpoint, format="pt2")
    names = {file.name for file in path.parent.iterdir()}
    assert names == {"best.ckpt", "best.pt2", "preprocess.json"}
