"""predict.py on what people have on their disks: every kind of picture, every kind of damage, every kind of name."""

import csv
import io
import itertools
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_two_lines, composed, pictures, run_script, run_warm
from PIL import Image, ImageOps

import src
from src.decode import decode
from src.errors import UserError
from src.prediction import Tables, batches, find, predict
from src.text_table import aligned


@pytest.fixture(scope="session")
def checkpoint(finished_run) -> Path:
    return finished_run / "checkpoints" / "best.ckpt"


def asked(checkpoint: Path, path: object, folder: Path, **settings: object) -> dict:
    """`python predict.py ...` in this process; returns its results."""
    cfg = composed([f"{key}={value}" for key, value in ({"device": "cpu"} | settings).items()], "predict")
    cfg.ckpt, cfg.path = str(checkpoint), str(path)
    return predict(cfg, folder)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def a_picture(seed: int, size: int = 24) -> Image.Image:
    return Image.fromarray(pictures(1, 3, size, seed)[0].transpose(1, 2, 0))


NAMES = ["a=b", "1,2", "x(1)", "y[1]", "mit Leer zeichen", "猫", "it's", "{z}", "${x}", "line\nbreak", "100%", "-dash", "semi;colon"]


def write_good(folder: Path, n: int) -> None:
    """n readable pictures of every kind, in nested folders, under names that have broken programs."""
    kinds = ["jpg", "png", "grey", "rgba", "la", "palette", "16-bit", "1-bit", "cmyk", "exif", "bmp", "gif", "webp", "tif", "renamed"]
    for i, kind in zip(range(n), itertools.cycle(kinds)):
        image = a_picture(i)
        inside = folder / ("", "sub", "sub/猫 (2)", "folder.jpg")[i % 4]  # a folder may look like a picture
        inside.mkdir(parents=True, exist_ok=True)
        stem = inside / f"{NAMES[i % len(NAMES)]} {i}"
        modes = {"grey": "L", "rgba": "RGBA", "la": "LA", "palette": "P", "1-bit": "1"}
        if kind in modes:
            image.convert(modes[kind]).save(f"{stem}.png")
        elif kind == "16-bit":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(f"{stem}.PNG")
        elif kind == "cmyk":
            image.convert("CMYK").save(f"{stem}.jpeg")
        elif kind == "exif":
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(f"{stem}.jpg", exif=exif)
        elif kind == "renamed":
            image.save(f"{stem}.jpg", format="PNG")
        else:
            image.save(f"{stem}.{kind}")


def write_broken(folder: Path) -> set[str]:
    """30 files that cannot be read; returns their names."""
    folder.mkdir(parents=True)
    whole = folder.parent / "whole"
    a_picture(0, 64).save(whole, format="JPEG")
    jpeg = whole.read_bytes()
    a_picture(0, 64).save(whole, format="PNG")
    png = whole.read_bytes()
    whole.unlink()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    contents = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header only.jpg": jpeg[:20],
        "empty.jpg": b"",
        "empty.png": b"",
        "text.jpg": b"no picture at all\n" * 9,
        "page.png": b"<!DOCTYPE html><html></html>",
        "half.png": png[: len(png) // 2],
        "no checksum.png": png[:40] + b"\0\0\0\0" + png[44:],
        "bomb.png": png[:8] + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b""),
        "noise.gif": bytes(range(256)),
        "start.gif": b"GIF89a",
        "noise.tif": b"II*\0" + b"\xff" * 60,
        "start.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
        "noise.bmp": b"BM" + b"\xff" * 60,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / f"again {name}").write_bytes(content)
    (folder / "leads nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "leads to itself.png").symlink_to(folder / "leads to itself.png")
    return {path.name for path in folder.iterdir()}


def test_of_300_files_30_are_broken_and_named(checkpoint, tmp_path):
    """From the shell, from another directory, with the checkpoint moved to a third."""
    moved = tmp_path / "a b=1,(c) 猫" / "moved.ckpt"
    moved.parent.mkdir()
    moved.write_bytes(checkpoint.read_bytes())
    photos = tmp_path / "photos [x]=1,(2) 猫"
    broken = write_broken(photos / "broken")
    write_good(photos, 270)
    (photos / "notes.txt").write_text("not a picture, and not said to be one")
    (photos / ".hidden.jpg").write_text("left out")
    assert len(broken) == 30
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = run_warm("predict.py", f"ckpt={moved}", f"path={photos}", "batch_size=16", "hydra.run.dir=out", cwd=elsewhere)
    assert result.returncode == 1, result.stderr
    out = elsewhere / "out"
    predicted, unreadable = rows(out / "predictions.csv"), rows(out / "unreadable.csv")
    assert len(predicted) == 270 and len({row["file"] for row in predicted}) == 270
    assert {Path(row["file"]).name for row in unreadable} == broken and len(unreadable) == 30
    assert all(row["reason"] and "/" not in row["reason"] for row in unreadable)
    results = json.loads((out / "results.json").read_text())
    assert results["status"] == "completed" and results["predictions"] == 270 and results["unreadable"] == 30
    assert sum(results["classes"].values()) == 270
    assert "Could not read 30:" in result.stdout and "Passed over 1 without a picture's extension" in result.stdout
    assert "... and 250 more, in predictions.csv" in result.stdout and "Traceback" not in result.stderr
    assert not list(out.glob("*.part"))

    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["file"] for line in lines] == [row["file"] for row in predicted]
    net = src.load(moved)
    for line, row in list(zip(lines, predicted, strict=True))[::9]:
        expected, order = net.predict(row["file"])[0].sort(descending=True)
        assert [p["class"] for p in line["predictions"]] == [net.classes[i] for i in order[:3]] == [row[f"class_{k}"] for k in (1, 2, 3)]
        assert [p["probability"] for p in line["predictions"]] == pytest.approx(expected[:3].tolist(), abs=1e-5)


def test_a_second_prediction_into_a_folder_leaves_nothing_of_the_first(checkpoint, tmp_path):
    write_good(tmp_path / "in", 2)
    (tmp_path / "in" / "b.jpg").write_bytes(b"broken")
    asked(checkpoint, tmp_path / "in", tmp_path / "out", cam=True)
    assert (tmp_path / "out" / "unreadable.csv").exists() and len(list((tmp_path / "out" / "cam").iterdir())) == 2
    (tmp_path / "in" / "b.jpg").unlink()
    asked(checkpoint, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "unreadable.csv").exists() and not (tmp_path / "out" / "cam").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_figures_hang_on_neither_batches_nor_workers(checkpoint, tmp_path, workers):
    write_good(tmp_path / "in", 25)
    (tmp_path / "in" / "b.jpg").write_bytes(b"broken")
    once = asked(checkpoint, tmp_path / "in", tmp_path / "once", batch_size=64, num_workers=0)
    parts = asked(checkpoint, tmp_path / "in", tmp_path / "parts", batch_size=3, num_workers=workers)
    assert {**once, "checkpoint": ""} == {**parts, "checkpoint": ""} and once["unreadable"] == 1
    tables = [rows(tmp_path / name / "predictions.csv") for name in ("once", "parts")]
    assert (
        [row["file"] for row in tables[0]]
        == [row["file"] for row in tables[1]]
        == sorted((row["file"] for row in tables[0]), key=lambda file: [os.path.dirname(file), os.path.basename(file)])
    )
    probabilities = [[float(row["probability_1"]) for row in table] for table in tables]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-5)


def test_odd_exif_turns_the_picture_all_the_same(tmp_path):
    """Pillow opens this file, and fails to write its EXIF again."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    upright = Image.fromarray(pictures(1, 3, 32)[0].transpose(1, 2, 0))
    content = io.BytesIO()
    upright.rotate(90).save(content, "JPEG", exif=exif, quality=95)
    (tmp_path / "odd.jpg").write_bytes(content.getvalue().replace(b"\x01\x1a\x00\x05", b"\x01\x0a\x00\x05"))
    difference = decode(tmp_path / "odd.jpg", 32).astype(int) - np.asarray(upright).transpose(2, 0, 1)
    assert abs(difference).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_that_of_pillow(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(pictures(1, 3, 32)[0].transpose(1, 2, 0)).crop((0, 0, 24, 32))
    for name in ("a.png", "a.tif", "a.jpg", "a.webp"):
        picture.save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as opened:
            expected = ImageOps.exif_transpose(opened).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        assert (decode(tmp_path / name, 32) == np.asarray(expected).transpose(2, 0, 1)).all(), name


def test_colour_depth_and_rotation_do_not_change_the_answer(checkpoint, tmp_path):
    """The same grey picture in six encodings gets the same answer; a rotated one that of the upright picture."""
    grey = Image.fromarray(pictures(1, 1, 32)[0, 0])
    folder = tmp_path / "in"
    folder.mkdir()
    grey.save(folder / "l.png")
    grey.convert("RGB").save(folder / "rgb.png")
    grey.convert("RGBA").save(folder / "rgba.png")
    grey.convert("P").save(folder / "p.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "16.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to stand upright
    grey.rotate(90).save(folder / "exif.png", exif=exif)
    asked(checkpoint, folder, tmp_path / "out", top_k=10)
    table = rows(tmp_path / "out" / "predictions.csv")
    answers = [[float(row[f"probability_{k}"]) for k in range(1, 11)] for row in table]
    assert len(answers) == 6 and all(answer == pytest.approx(answers[0], abs=2e-6) for answer in answers)
    assert sum(answers[0]) == pytest.approx(1, abs=1e-4)


def test_files_are_drawn_as_they_are_asked_for():
    drawn = []
    names = (drawn.append(i) or str(i) for i in itertools.count())  # endless: a program that collects them never returns
    assert list(itertools.islice(batches(names, 3), 2)) == [["0", "1", "2"], ["3", "4", "5"]] and len(drawn) == 6
    assert list(batches(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_what_exists_is_no_pattern_and_patterns_match_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x[1].jpg", "x1.jpg", "sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt", "sub/.git/c.jpg", "~"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")

    def found(path):
        return [file for file, wanted in find(path) if wanted]

    assert found("x[1].jpg") == ["x[1].jpg"] and found("x[0-9].jpg") == ["x1.jpg"] and found("~") == ["~"]
    assert found("sub") == ["sub/a.jpg", "sub/deep/b.jpg"] and found("su*") == found("sub")
    assert found("sub/*.txt") == ["sub/notes.txt"] and found("**/*.jpg") == ["sub/a.jpg", "sub/deep/b.jpg", "x1.jpg", "x[1].jpg"]
    assert found("sub/**") == ["sub/a.jpg", "sub/deep/b.jpg", "sub/notes.txt"]


def test_grad_cam_pictures(checkpoint, tmp_path):
    write_good(tmp_path / "in", 5)
    (tmp_path / "in" / f"{'long' * 60}.jpg").write_bytes((tmp_path / "in" / "a=b 0.jpg").read_bytes())
    results = asked(checkpoint, tmp_path / "in", tmp_path / "out", cam="true", batch_size=2)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert results["predictions"] == len(lines) == len({line["cam"] for line in lines}) == 6
    for line in lines:
        with Image.open(tmp_path / "out" / line["cam"]) as image:
            assert image.size == (224, 224) and image.mode == "RGB"


@pytest.mark.parametrize(
    ("path", "settings", "words"),
    [
        ("nothing", {}, "There is no nothing"),
        ("*.jpg", {}, "Nothing matches"),
        ("empty", {}, "holds no files"),
        ("texts", {}, "holds 1 files, but no pictures"),
        ("texts", {"top_k": 0}, "top_k=0"),
        ("texts", {"batch_size": "many"}, "batch_size=many"),
        ("texts/a.txt", {"device": "tpu3"}, "device=tpu3"),
        pytest.param(
            "texts/a.txt", {"device": "cuda"}, "finds no such", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has one")
        ),
    ],
)
def test_mistakes(checkpoint, tmp_path, monkeypatch, path, settings, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    with pytest.raises(UserError, match=words.replace("*", r"\*")):
        asked(checkpoint, path, tmp_path / "out", **settings)


def test_what_must_be_typed_is_asked_for_without_importing_torch(tmp_path):
    result = run_script("predict.py", "ckpt=x", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 2 and " torch" not in result.stderr
    assert "Error: path= is missing." in result.stderr
    assert_two_lines(run_script("predict.py", "top_kk=3", cwd=tmp_path), "top_kk", "Did you mean top_k?")


def test_names_that_are_no_text(checkpoint, tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system wants UTF-8")
    a_picture(0).save(tmp_path / os.fsdecode(b"\xff\x1b[31m.png"))
    results = asked(checkpoint, tmp_path, tmp_path / "out")
    assert results["predictions"] == results["unreadable"] == 1
    (row,) = rows(tmp_path / "out" / "predictions.csv")
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert os.path.exists(row["file"]) and line["file"] == row["file"]
    assert aligned([["\x1b[31m\udcff", "x"]]) == "\\x1b[31m\\udcff  x"


def test_columns_are_aligned_for_wide_characters():
    assert aligned([["猫", "a"], ["cat", "b"]]) == "猫   a\ncat  b"


def test_what_was_cut_off_says_that_it_is_a_part(tmp_path):
    with pytest.raises(KeyboardInterrupt), Tables(tmp_path, 1) as tables:
        tables.prediction("a.jpg", [("cat", 0.75)], None)
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.csv.part", "predictions.jsonl.part"}
    assert (tmp_path / "predictions.csv.part").read_text() == "file,class_1,probability_1\na.jpg,cat,0.750000\n"
