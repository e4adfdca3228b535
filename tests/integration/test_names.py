"""Names from outside: control characters, any script, bytes that are no text, long names."""

import csv
import os
import re
import subprocess
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from helpers import run_warm, write_image_folder
from PIL import Image

NAMES = ["red\x1b[31m", "\x1b]0;title\x07", "return\rx", "new\nline", "tab\tx", "\x01\x1f\x7f"]
NAMES += ["\x9b31m", "\u202egnp", "e\u0301\u0323", "😀👩\u200d💻", "عربي", "汉字 漢字", "x" * 255]
NAMES += ["$a_{b$ & <b>\"'", "\u2028\x85", "=1+1"]
TYPED = ["model=lenet", "data.image_size=16", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
FOLDER = ["data=image_folder", "data.bad_files=skip", "data.test_size=0.3", "data.val_size=0.4"]


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder of images with such names, and a file that is no image."""
    root = write_image_folder(tmp_path / "data", dict.fromkeys(NAMES, 6), 16)
    folder = os.fsencode(root) + b"/\xff"
    os.mkdir(folder)
    for i in range(6):
        with open(folder + b"/%d\xff.jpg" % i, "wb") as file:
            Image.new("L", (16, 16), 40 * i).save(file, "JPEG")
    for name in ("a\x1b[31m\rb\nc.jpg", "f" * 250 + ".jpg"):
        Image.new("L", (16, 16)).save(root / "new\nline" / name)
    (root / "return\rx" / "no\x1b[2J\nimage.jpg").write_bytes(b"x")
    return root


def controls(text: str) -> set[str]:
    """Characters that a terminal obeys, that turn the direction of text, or that are no text."""
    wanted = set("\n\t\u200c\u200d")
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {c for c in text if unicodedata.category(c) in kinds and c not in wanted}


def check(result: subprocess.CompletedProcess, code: int = 0) -> str:
    output = result.stdout + result.stderr
    assert result.returncode == code, output
    assert not controls(output) and "Traceback" not in output and "Glyph" not in output
    return output


def check_folder(folder: Path) -> None:
    """Assert that pages, plots and tables can be read by anybody."""
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        assert plots and not controls(text)
        for plot in plots:
            ElementTree.fromstring(plot)
    for table in folder.glob("*.csv"):
        with open(table, newline="", encoding="utf-8", errors="surrogateescape") as file:
            widths = {len(row) for row in csv.reader(file)}
        assert len(widths) == 1, table
    for log in folder.glob("*.log"):
        assert not controls(log.read_text(encoding="utf-8"))


def test_a_run_on_names_from_outside(data, tmp_path):
    run = tmp_path / "run\x1b[31m\nx"
    typed = [*TYPED, *FOLDER, f"data.root={data}", f"hydra.run.dir='{run}'"]
    output = check(run_warm("train.py", *typed, cwd=tmp_path))
    assert r"red\x1b[31m" in output and "汉字" in output
    check_folder(run)


@pytest.mark.slow
def test_other_commands_on_names_from_outside(data, tmp_path):
    run = tmp_path / "run"
    typed = [*TYPED, *FOLDER, f"data.root={data}"]
    check(run_warm("train.py", *typed, f"hydra.run.dir={run}", cwd=tmp_path))
    predicted = ["path=" + str(data), "device=cpu", "cam=true", f"hydra.run.dir={tmp_path / 'p'}"]
    result = run_warm("predict.py", f"ckpt={run}", *predicted, cwd=tmp_path)
    assert r"no\x1b[2J\nimage.jpg" in check(result, 1)  # a file cannot be read
    check_folder(tmp_path / "p")
    evaluated = [f"ckpt={run}", "trainer.accelerator=cpu", "hydra.run.dir=e"]
    check(run_warm("evaluate.py", *evaluated, cwd=tmp_path))
    check_folder(tmp_path / "e")
    for target in ("onnx", "pt2"):
        check(run_warm("export.py", f"ckpt={run}", f"format={target}", cwd=tmp_path))
    check(run_warm("train.py", *typed, "check=data", cwd=tmp_path), 1)
    sweep = ["-m", *TYPED, "+note='\x1b[31m\n','\u202e'"]
    check(run_warm("train.py", *sweep, "hydra.sweep.dir=s", cwd=tmp_path))
    check_folder(tmp_path / "s")
