"""src.load: everything that is an image goes in, everything else is refused, the file suffices."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, random_images
from PIL import Image

import src
from src.errors import UserError
from src.inference import Classifier
from src.models import LeNet
from src.runs.checkpoint_file import save

DIGITS = list("0123456789")
LENET = {"in_channels": 1, "num_classes": 10, "image_size": 16}
RGB = {"classes": ["red", "blue"], "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}


def describe(**changes) -> dict:
    """The description of a checkpoint of a LeNet for grey images of 16x16."""
    return {
        "model": {"_target_": "src.models.LeNet"} | LENET,
        "classes": DIGITS,
        "channels": 1,
        "image_size": 16,
        "mean": [0.3],
        "std": [0.2],
    } | changes


def write_checkpoint(path, net=None, prefix="model.", **changes):
    torch.manual_seed(0)
    net = net or LeNet(1, 10, 16)
    state = {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}
    save({"state_dict": state, "description": describe(**changes)}, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


@pytest.fixture(scope="module")
def net(checkpoint) -> Classifier:
    return src.load(checkpoint)


@pytest.fixture(scope="module")
def rgb() -> Classifier:
    """A network for RGB images of 16x16 that separates red from blue."""
    linear = torch.nn.Linear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[9.0, 0, -9], [-9, 0, 9]])
    model = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), linear)
    return Classifier(model, RGB | {"image_size": 16}).eval()


def test_all_forms_of_a_grey_image_give_the_same(net, tmp_path):
    grey = random_images(1, 1, 28)[0, 0]
    tensor = torch.from_numpy(grey)
    Image.fromarray(grey).save(tmp_path / "grey, (1)=猫.png")
    forms = [
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGB"),
        tmp_path / "grey, (1)=猫.png",
        str(tmp_path / "grey, (1)=猫.png"),
        grey,
        (tmp_path / "grey, (1)=猫.png").read_bytes(),
        io.BytesIO((tmp_path / "grey, (1)=猫.png").read_bytes()),
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
    results = [net.predict(form) for form in forms]
    for form, result in zip(forms, results, strict=True):
        assert result.shape == (1, 10) and result.sum() == pytest.approx(1)
        torch.testing.assert_close(result, results[0], msg=str(type(form)))


def test_batches_and_lists_keep_their_order(net):
    batch = torch.from_numpy(random_images(130, 1, 20))
    expected = torch.cat([net.predict(image) for image in batch])
    torch.testing.assert_close(net.predict(batch), expected)
    torch.testing.assert_close(net.predict(batch.permute(0, 2, 3, 1).numpy()), expected)
    torch.testing.assert_close(net.predict([batch[:100], *batch[100:]]), expected)
    assert net.predict([]).shape == (0, 10) and not net.training


def test_channels_keep_their_order_and_transparency_is_white(rgb):
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    opaque = np.full((20, 30), 255, np.uint8)
    forms = [
        red,
        Image.fromarray(red),
        torch.from_numpy(red).permute(2, 0, 1),
        red[None],
        np.dstack([red, opaque]),
    ]
    for form in forms:
        assert rgb.classes[rgb.predict(form).argmax()] == "red"
    transparent = np.dstack([red, 0 * opaque])
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
        (np.zeros((1, 1, 1, 8, 8), np.uint8), "(1, 1, 1, 8, 8)"),
        ("gone.jpg", "gone.jpg: "),
        (b"no image", "The content that was given: it is not an image"),
        (b"", "the file is empty"),
        (io.BytesIO(), "the file is empty"),
        (io.StringIO("text"), "it cannot be decoded"),
        ([None], "NoneType"),
    ],
)
def test_other_values_are_refused(net, images, words):
    with pytest.raises(UserError) as error:
        net.predict(images)
    assert words in error.value.problem and error.value.remedy


def test_each_item_gets_its_result_or_its_error(net):
    grey = random_images(9, 1, 20)[:, 0]
    items = [*grey[:4], b"broken", None, grey[:2, ..., None], [], *grey[4:], "gone.jpg"]
    results = net.predict_each(items)
    assert len(results) == len(items)
    errors = [i for i, result in enumerate(results) if isinstance(result, UserError)]
    assert errors == [4, 5, 6, 7, 13]
    rows = torch.stack([result for result in results if not isinstance(result, UserError)])
    torch.testing.assert_close(rows, net.predict(list(grey)))
    assert all(isinstance(result, UserError) for result in net.predict_each([b"", b"x"]))
    assert net.predict_each([]) == []


def test_normalized_pixels_are_refused(net):
    with pytest.raises(UserError, match="uint8"):
        net(torch.zeros(1, 1, 16, 16))


def test_normalize_leaves_its_input_unchanged(net):
    images = torch.from_numpy(random_images(2, 1, 16))
    before = images.clone()
    expected = (images.double() / 255 - 0.3) / 0.2
    torch.testing.assert_close(net.normalize(images).double(), expected, atol=1e-5, rtol=0)
    assert torch.equal(images, before)


def test_a_network_without_an_image_size_takes_arrays(rgb):
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), rgb.model[2])
    free = Classifier(model, RGB)
    assert free.predict(np.zeros((9, 9, 3), np.uint8)).shape == (1, 2)
    with pytest.raises(UserError, match="image size"):
        free.predict("a.png")


# Rebuilding the network


def test_weights_of_a_compiled_network_and_of_other_packages_load(net, tmp_path):
    """A fork renames the package; a compiled network has `_orig_mod.` in its names."""
    model = describe()["model"] | {"_target_": "renamed.models.LeNet"}
    path = write_checkpoint(tmp_path / "a.ckpt", prefix="model._orig_mod.", model=model)
    images = torch.from_numpy(random_images(3, 1, 16))
    assert torch.equal(src.load(path)(images), net(images))


def test_a_task_composed_in_python_needs_its_network(tmp_path):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    path = write_checkpoint(tmp_path / "a.ckpt", net, model=None)
    with pytest.raises(UserError, match="does not describe a network"):
        src.load(path)
    empty = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    images = torch.zeros(1, 1, 16, 16)
    assert torch.equal(src.load(path, model=empty).model(images), net(images))
    with pytest.raises(UserError, match="another architecture"):
        src.load(path, model=LeNet(1, 10, 16))


def test_pretrained_weights_are_not_read(tmp_path):
    from src.models import Torchvision

    spec = {"_target_": "src.models.Torchvision", "in_channels": 1, "num_classes": 10}
    spec |= {"name": "squeezenet1_1", "weights": "gone.pth"}
    model = Torchvision(1, 10, "squeezenet1_1")
    path = write_checkpoint(tmp_path / "a.ckpt", model, model=spec)
    assert isinstance(src.load(path).model, Torchvision)


@pytest.mark.parametrize(
    "changes",
    [
        {"_target_": "os.system", "command": "touch ran"},
        {"_target_": "src.runs.files.write_text", "path": "ran", "text": ""},
        {"_target_": "src.models.weights.torch.hub.load"},
        {"_target_": "src.models.weights.load_weights"},
        {"_target_": "src.models.lenet.nn.Linear", "in_features": 1},
        {"image_size": 40_000_000},  # terabytes
        {"num_classes": 2**62},
        {"surplus": 1},
    ],
)
def test_hostile_descriptions_build_nothing(changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_checkpoint(tmp_path / "a.ckpt", model=describe()["model"] | changes)
    with pytest.raises(UserError) as error:
        src.load(path)
    assert error.value.remedy and [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.slow
def test_the_package_and_the_file_are_enough(checkpoint, tmp_path):
    """Another directory, a copy of `src` alone on the path, the checkpoint moved."""
    site, moved = tmp_path / "site", tmp_path / "moved"
    shutil.copytree(ROOT / "src", site / "src", ignore=shutil.ignore_patterns("__pycache__"))
    moved.mkdir()
    shutil.copy(checkpoint, moved / "网络 (1).ckpt")
    code = """
import sys
import numpy as np
import src
assert src.__file__.startswith(sys.argv[1]), src.__file__
net = src.load(sys.argv[2])
shape = tuple(net.predict([np.zeros((9, 9), np.uint8)] * 2).shape)
print(net.classes, shape, "hydra" in sys.modules)
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
    assert result.stdout.strip() == f"{DIGITS} (2, 10) False"
