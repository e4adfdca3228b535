"""src.load: everything that is a picture goes in, everything that is not is told, and it needs the package and the file alone."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, pictures
from PIL import Image

import src
from src.classifier import Classifier
from src.errors import UserError


@pytest.fixture(scope="module")
def net(finished_run) -> Classifier:
    return src.load(finished_run / "checkpoints" / "best.ckpt")


@pytest.fixture(scope="module")
def rgb() -> Classifier:
    """A network for RGB pictures of 16x16 that tells red from blue."""
    model = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(3, 2, bias=False))
    model[2].weight.data = torch.tensor([[9.0, 0, -9], [-9, 0, 9]])
    return Classifier(
        model, {"classes": ["red", "blue"], "channels": 3, "image_size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
    ).eval()  # fmt: skip


def test_every_way_to_hold_a_grey_picture_gives_the_same(net):
    grey = pictures(1, 1, 28)[0, 0]
    tensor = torch.from_numpy(grey)
    ways = [
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGB"),
        grey,
        grey[..., None],
        np.stack([grey] * 3, -1),
        grey.astype(np.uint16) * 257,
        np.stack([grey] * 3, -1).astype(np.uint16) * 257,
        np.asfortranarray(grey),
        grey[None, ..., None],
        tensor,
        tensor[None],
        tensor[None].expand(3, -1, -1),
        tensor[None, None],
        [Image.fromarray(grey)],
        (tensor,),
    ]
    results = [net.predict(way) for way in ways]
    assert all(result.shape == (1, 10) for result in results)
    for way, result in zip(ways, results, strict=True):
        torch.testing.assert_close(result, results[0], msg=str(type(way)))


def test_batches_and_lists_keep_their_order(net):
    batch = torch.from_numpy(pictures(130, 1, 20))
    expected = torch.cat([net.predict(image) for image in batch])
    torch.testing.assert_close(net.predict(batch), expected)
    torch.testing.assert_close(net.predict(batch.permute(0, 2, 3, 1).numpy()), expected)
    torch.testing.assert_close(net.predict([batch[:100], *batch[100:]]), expected)
    assert net.predict([]).shape == (0, 10) and not net.training


def test_channels_are_where_they_belong(rgb):
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    ways = [
        red,
        Image.fromarray(red),
        torch.from_numpy(red).permute(2, 0, 1),
        red[None],
        np.dstack([red, np.full((20, 30), 255, np.uint8)]),
    ]
    for way in ways:
        assert rgb.classes[rgb.predict(way).argmax()] == "red"
    transparent = np.dstack([red, np.zeros((20, 30), np.uint8)])  # lies on white: neither red nor blue
    torch.testing.assert_close(rgb.predict(transparent), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((8, 8)), "float64"),
        (torch.zeros(1, 8, 8, dtype=torch.bfloat16), "bfloat16"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), bool), "bool"),
        (np.zeros((3, 8, 8), np.uint8), "(3, 8, 8)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "(8, 8, 3)"),
        (np.zeros(8, np.uint8), "(8,)"),
        (np.zeros((0, 8), np.uint8), "(0, 8)"),
        ("gone.jpg", "gone.jpg: it cannot be decoded (No such file"),
        ([None], "NoneType"),
    ],
)
def test_what_is_no_picture_is_told(net, images, words):
    with pytest.raises(UserError) as error:
        net.predict(images)
    assert words in error.value.problem and error.value.remedy


def test_normalised_pixels_are_refused_where_bytes_are_meant(net):
    with pytest.raises(UserError, match="uint8"):
        net(torch.zeros(1, 1, 32, 32))


def test_the_package_and_the_file_are_enough(finished_run, tmp_path):
    """A process in another directory, with a copy of `src` alone on its path and the checkpoint moved: no conf, no train.py."""
    site, moved = tmp_path / "site", tmp_path / "moved"
    shutil.copytree(ROOT / "src", site / "src", ignore=shutil.ignore_patterns("__pycache__"))
    moved.mkdir()
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", moved / "网络 (1).ckpt")
    code = """
import sys
import numpy as np
import src
assert src.__file__.startswith(sys.argv[1]), src.__file__
net = src.load(sys.argv[2])
print(net.classes, tuple(net.predict([np.zeros((9, 9), np.uint8)] * 2).shape), "hydra" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(site), str(moved / "网络 (1).ckpt")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{list('0123456789')} (2, 10) False"
