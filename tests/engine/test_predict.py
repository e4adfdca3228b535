"""predict.py on the files that people have: every kind of image, damage and name."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import composed, random_images
from image_files import make_image, write_broken, write_readable
from PIL import Image
from predict_helpers import read_rows, run_predict

import src
from src.engine.predict import choose_device, log_predictions
from src.engine.prediction_files import Prediction, PredictionWriter
from src.errors import UserError
from src.models import LeNet


def test_of_300_files_30_are_broken_and_named(lenet_checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    moved = tmp_path / "a b=1,(c) 猫" / "moved.ckpt"
    moved.parent.mkdir()
    moved.write_bytes(lenet_checkpoint.read_bytes())
    photos = tmp_path / "photos [x]=1,(2) 猫"
    broken = write_broken(photos / "broken")
    write_readable(photos, 270)
    (photos / "notes.txt").write_text("without the extension of an image")
    (photos / ".hidden.jpg").write_text("skipped")
    out = tmp_path / "out"
    results = run_predict(moved, photos, out, batch_size=16)

    predicted, unreadable = (
        read_rows(out / f"{name}.csv") for name in ("predictions", "unreadable")
    )
    assert len(predicted) == 270 and len({row["file"] for row in predicted}) == 270
    assert {Path(row["file"]).name for row in unreadable} == broken and len(unreadable) == 30
    assert all(row["reason"] and "/" not in row["reason"] for row in unreadable)
    assert results == json.loads((out / "results.json").read_text())
    assert results["status"] == "completed"
    assert results["predictions"] == 270 and results["unreadable"] == 30
    assert sum(results["classes"].values()) == 270
    for text in (
        "Could not read 30:",
        "Skipped 1 files without the extension of an image",
        "... and 250 more, in predictions.csv",
    ):
        assert text in caplog.text
    assert not list(out.glob("*.part"))

    text = (out / "predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in predicted]
    classifier = src.load(moved)
    for line, row in list(zip(lines, predicted, strict=True))[::9]:
        expected, order = classifier.predict(row["file"])[0].sort(descending=True)
        names = [prediction["class"] for prediction in line["predictions"]]
        assert names == [classifier.classes[i] for i in order[:3]]
        assert names == [row[f"class_{rank}"] for rank in (1, 2, 3)]
        values = [prediction["probability"] for prediction in line["predictions"]]
        assert values == pytest.approx(expected[:3].tolist(), abs=1e-5)


def test_a_second_prediction_into_a_folder_replaces_the_first(lenet_checkpoint, tmp_path):
    photos, out = tmp_path / "in", tmp_path / "out"
    write_readable(photos, 2)
    (photos / "b.jpg").write_bytes(b"broken")
    run_predict(lenet_checkpoint, photos, out, cam=True)
    assert (out / "unreadable.csv").exists() and len(list((out / "cam").iterdir())) == 2
    (photos / "b.jpg").unlink()
    run_predict(lenet_checkpoint, photos, out)
    assert not (out / "unreadable.csv").exists() and not (out / "cam").exists()


@pytest.mark.parametrize("workers", [0, 2, None])
def test_results_depend_neither_on_batches_nor_on_workers(lenet_checkpoint, tmp_path, workers):
    write_readable(tmp_path / "in", 25)
    (tmp_path / "in" / "b.jpg").write_bytes(b"broken")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run_predict(lenet_checkpoint, tmp_path / "in", whole, num_workers=0)
    settings = {"batch_size": 3, "num_workers": "null" if workers is None else workers}
    assert run_predict(lenet_checkpoint, tmp_path / "in", parts, **settings) == expected
    assert expected["unreadable"] == 1
    tables = [read_rows(folder / "predictions.csv") for folder in (whole, parts)]
    files = [[row["file"] for row in table] for table in tables]
    assert files[0] == files[1] == sorted(files[0], key=os.path.split)
    values = [[float(row["probability_1"]) for row in table] for table in tables]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_encoding_and_rotation_do_not_change_predictions(lenet_checkpoint, tmp_path):
    grey = Image.fromarray(random_images(1, 1, 32)[0, 0])
    folder = tmp_path / "in"
    folder.mkdir()
    for mode in ("L", "RGB", "RGBA", "P"):
        grey.convert(mode).save(folder / f"{mode}.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "16.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    grey.rotate(90).save(folder / "exif.png", exif=exif)
    run_predict(lenet_checkpoint, folder, tmp_path / "out", top_k=10)
    table = read_rows(tmp_path / "out" / "predictions.csv")
    values = [[float(row[f"probability_{rank}"]) for rank in range(1, 11)] for row in table]
    assert len(values) == 6
    assert all(row == pytest.approx(values[0], abs=2e-6) for row in values)
    assert sum(values[0]) == pytest.approx(1, abs=1e-4)


def test_grad_cam_overlays(lenet_checkpoint, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_readable(folder, 5)
    (folder / f"{'long' * 60}.jpg").write_bytes((folder / "a=b 0.jpg").read_bytes())
    results = run_predict(lenet_checkpoint, folder, out, cam="true", batch_size=2)
    text = (out / "predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert results["predictions"] == len(lines) == len({line["cam"] for line in lines}) == 6
    for line in lines:
        with Image.open(out / line["cam"]) as image:
            assert image.size == (224, 224) and image.mode == "RGB"


def test_memory_holds_the_rows_of_one_batch(tmp_path):
    ranking = [("cat", 1.0)]
    with PredictionWriter(tmp_path, top_k=1) as writer:
        for _ in range(50):
            writer.write([Prediction("a.jpg", ranking)] * 10, [("b.jpg", "broken")])
            assert len(writer.first_predictions) <= 20 and len(writer.first_failures) <= 20
    assert writer.counts["cat"] == len(read_rows(tmp_path / "predictions.csv")) == 500
    assert writer.num_unreadable == len(read_rows(tmp_path / "unreadable.csv")) == 50


def test_a_failure_is_recorded_and_keeps_the_rows_before(lenet_checkpoint, tmp_path, monkeypatch):
    write_readable(tmp_path / "in", 3)
    original, calls = LeNet.forward, []

    def fail(self, images):
        calls.append(images)
        if len(calls) > 2:
            raise ZeroDivisionError("in the network")
        return original(self, images)

    monkeypatch.setattr(LeNet, "forward", fail)
    with pytest.raises(ZeroDivisionError):
        run_predict(lenet_checkpoint, tmp_path / "in", tmp_path / "out", batch_size=1)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == {"status": "failed", "error": "ZeroDivisionError: in the network"}
    assert len(read_rows(tmp_path / "out" / "predictions.csv.part")) == 2


def test_errors_of_a_network_in_workers_arrive(lenet_checkpoint, tmp_path, monkeypatch):
    write_readable(tmp_path / "in", 9)
    forward = LeNet.forward
    monkeypatch.setattr(LeNet, "forward", lambda self, images: forward(self, images)[:, :2])
    with pytest.raises(UserError, match="2 outputs"):
        run_predict(lenet_checkpoint, tmp_path / "in", tmp_path / "out", batch_size=1)


@pytest.mark.parametrize(
    ("path", "settings", "words"),
    [
        ("nothing", {}, "no images at path=nothing"),
        ("*.jpg", {}, "no images at path=*.jpg"),
        ("texts", {}, "and 1 other files"),
        ("texts", {"top_k": 0}, "top_k=0"),
        ("texts", {"batch_size": "many"}, "batch_size=many"),
        ("texts/a.txt", {"device": "tpu3"}, "device=tpu3"),
    ],
)
def test_settings_errors(lenet_checkpoint, tmp_path, monkeypatch, path, settings, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    with pytest.raises(UserError) as caught:
        run_predict(lenet_checkpoint, path, tmp_path / "out", **settings)
    assert words in caught.value.problem


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_this_machine_does_not_have():
    with pytest.raises(UserError, match="device=cuda cannot be used"):
        choose_device("cuda")


def test_names_that_are_not_text(lenet_checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system requires UTF-8")
    make_image(0).save(tmp_path / os.fsdecode(b"\xff\x1b[31m.png"))
    results = run_predict(lenet_checkpoint, tmp_path, tmp_path / "out")
    assert results["predictions"] == results["unreadable"] == 1
    (row,) = read_rows(tmp_path / "out" / "predictions.csv")
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert os.path.exists(row["file"]) and line["file"] == row["file"]
    assert "\\udcff\\x1b[31m.png" in caplog.text and "\x1b" not in caplog.text


def test_the_console_shows_the_first_rows(caplog, tmp_path):
    caplog.set_level("INFO")
    ranking = [("cat", 0.75), ("dog", 0.25)]
    with PredictionWriter(tmp_path, top_k=2) as writer:
        for start in (0, 15):
            numbers = range(start, min(start + 15, 25))
            writer.write([Prediction(f"photos/{i}.jpg", ranking) for i in numbers], [])
    log_predictions("photos", writer)
    assert "cat 0.7500" in caplog.text and "photos/" not in caplog.text
    assert "19.jpg" in caplog.text and "20.jpg" not in caplog.text
    assert "... and 5 more, in predictions.csv" in caplog.text
    assert "Predicted 25 (cat: 25)" in caplog.text


def test_onnxruntime_gives_the_predictions_of_the_checkpoint(lenet_checkpoint, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from src.engine.export import export

    write_readable(tmp_path / "photos", 6)
    cfg = composed([], "export")
    cfg.ckpt, cfg.output = str(lenet_checkpoint), str(tmp_path)
    ways = {
        "torch": (lenet_checkpoint, {}),
        "memory": (lenet_checkpoint, {"engine": "onnx"}),
        "workers": (export(cfg), {"batch_size": 1}),  # enough batches that workers run the network
    }
    rows = {}
    for name, (ckpt, settings) in ways.items():
        run_predict(ckpt, tmp_path / "photos", tmp_path / name, **settings)
        rows[name] = read_rows(tmp_path / name / "predictions.csv")
    for name in ("memory", "workers"):
        for expected, row in zip(rows["torch"], rows[name], strict=True):
            assert (row["file"], row["class_1"]) == (expected["file"], expected["class_1"])
            probability = float(expected["probability_1"])
            assert float(row["probability_1"]) == pytest.approx(probability, abs=1e-5)
    with pytest.raises(UserError, match="has no gradients"):
        run_predict(lenet_checkpoint, tmp_path / "photos", tmp_path, engine="onnx", cam="true")
