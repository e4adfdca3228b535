"""What a person who writes a first network or YAML file sees after a mistake."""

import sys

import lightning as L
import pytest
import torch
from helpers import ROOT, composed
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torchmetrics import Metric

from src.config.hydra_errors import to_user_error
from src.config.tracebacks import format_error
from src.engine.check import check
from src.engine.train import train
from src.errors import UserError
from src.tasks import ClassificationTask

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class MyNet(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, num_classes)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return self.fc2(x)
"""
OPTIONS = ["trainer.accelerator=cpu", "logger=none", "~callbacks.report", "data.image_size=32"]


@pytest.fixture
def student(tmp_path, monkeypatch):
    """Write a network and check it; returns what the screen shows, or None where all is well."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(code, *typed):
        (tmp_path / "my_net.py").write_text(code.lstrip())
        sys.modules.pop("my_net", None)
        cfg = composed([*OPTIONS, "model=lenet", *typed])
        cfg.model._target_ = "my_net.MyNet"
        return shown(check, cfg, tmp_path / "run")

    return run


def shown(function, *args):
    try:
        function(*args)
    except Exception as error:
        user_error = error if isinstance(error, UserError) else to_user_error(error)
        return str(user_error) if user_error else format_error(error, "train.log")
    return None


def changed(*pairs):
    code = NETWORK
    for old, new in pairs:
        assert old in code
        code = code.replace(old, new, 1)
    return code


def test_the_network_without_a_mistake(student):
    assert student(NETWORK) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "16 * 5 * 5",
            "256",
            ["my_net.py:19, self.fc1: got 400 features in (2, 400)", "expects 256"],
        ),
        ("        x = torch.flatten(x, 1)\n", "", ["self.fc1: got 5 features", "expects 400"]),
        ("nn.Conv2d(in_channels", "nn.Conv2d(3", ["self.conv1: got 1 channels", "expects 3"]),
        ("nn.Conv2d(6, 16", "nn.Conv2d(8, 16", ["self.conv2: got 6 channels", "expects 8"]),
        (
            "torch.flatten(x, 1)",
            "x.view(-1, 300)",
            ["'[-1, 300]'", "self.pool, returned (2, 16, 5"],
        ),
        ("torch.flatten(x, 1)", "x.view(-1, 80)", ["self.fc1: got 80 features in (10, 80)"]),
        ("torch.flatten(x, 1)", "torch.flatten(x)", ["self.fc1: got (800,)"]),
        ("import torch\n", "", ["line 17, in forward", "name 'torch' is not defined"]),
        ("from torch.nn import functional as F\n", "", ["name 'F' is not defined"]),
        ("nn.Conv2d(6", "nn.Conv2D(6", ["in __init__", "no attribute 'Conv2D'"]),
        ("self.fc2(x)", "self.fc4(x)", ["line 20, in forward", "no attribute 'fc4'"]),
        ("        super().__init__()\n", "", ["cannot assign module before Module.__init__()"]),
        (
            "def forward",
            "def foward",
            ['missing the required "forward"', "defined in", "my_net.py:6"],
        ),
        ("forward(self, x)", "forward(x)", ["takes 1 positional argument", "my_net.py:6"]),
        ("forward(self, x):", "forward(self, x)", ["my_net.py", "line 15", "SyntaxError"]),
        ("        return", "      return", ["my_net.py", "line 20", "IndentationError"]),
        ("torch.flatten(x, 1)", "torch.flatten(x, 1).cuda()", ["line 18, in forward", "cuda()"]),
        ("return self.fc2(x)", "raise ValueError('mine')", ["line 20", "ValueError: mine"]),
        ("import torch\n", "import torch\nimport nothing_here\n", ["line 2", "'nothing_here'"]),
    ],
)
def test_mistakes_in_code_show_file_line_and_cause(student, old, new, words):
    text = student(changed((old, new)))
    assert text.startswith("Traceback") and len(text.splitlines()) <= 25
    assert "Did you mean" not in text
    for word in words:
        assert word in text


def test_a_view_that_splits_the_images(student):
    text = student(changed(("torch.flatten(x, 1)", "x.view(-1, 200)"), ("16 * 5 * 5", "200")))
    assert text.splitlines() == [
        "MyNet returns logits of 4 images for 2 images.",
        "Keep the first axis in forward: x.flatten(1), or x.view(x.shape[0], -1).",
    ]


def test_layers_in_a_list(student):
    in_a_list = "self.convs = [nn.Conv2d(6, 16, 5)]"
    text = student(
        changed(("self.conv2 = nn.Conv2d(6, 16, 5)", in_a_list), ("self.conv2(", "self.convs[0]("))
    )
    assert "my_net.py:6: self.convs is a list of layers, which are neither trained nor" in text
    assert "nn.ModuleList" in text


class Typo(L.Callback):
    def on_train_epoch_ends(self, trainer, pl_module):
        pass


class NoCallback:
    pass


def test_a_class_that_is_no_callback(tmp_path):
    cfg = composed([*OPTIONS, f"+callbacks.mine._target_={__name__}.NoCallback"])
    text = shown(check, cfg, tmp_path / "run")
    assert "NoCallback is not a callback" in text and "Inherit lightning.Callback" in text


def test_a_hook_that_does_not_exist(tmp_path, caplog):
    cfg = composed([*OPTIONS, f"+callbacks.mine._target_={__name__}.Typo"])
    check(cfg, tmp_path / "run")
    assert "Typo.on_train_epoch_ends is not a hook of Lightning" in caplog.text
    assert "Did you mean on_train_epoch_end" in caplog.text


def test_another_progress_bar_takes_the_place_of_ours(tmp_path):
    bar = "+callbacks.bar._target_=lightning.pytorch.callbacks.TQDMProgressBar"
    assert shown(check, composed([*OPTIONS, bar]), tmp_path / "run") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nn.Linear(120, num_classes)", "nn.Linear(120, 5)", ["shape (2, 5)", "10 classes"]),
        ("nn.Linear(120, num_classes)", "nn.Linear(120, 20)", ["(2, 20)", "num_classes"]),
        ("return self.fc2(x)", "self.fc2(x)", ["MyNet returns nothing instead of logits"]),
        ("return self.fc2(x)", "return self.fc2(x), x", ["returns a tuple instead of logits"]),
        ("return self.fc2(x)", "return self.fc2(x).argmax(1)", ["shape (2,)"]),
        ("return self.fc2(x)", "return self.fc2(x).mean()", ["shape ()"]),
        ("return self.fc2(x)", "return self.fc2(x).detach()", ["does not depend on", "detach"]),
        (
            "self, in_channels, num_classes",
            "self",
            ["my_net.py:6", "unexpected keyword argument 'in_channels'"],
        ),
        (
            "self, in_channels, num_classes",
            "in_channels, num_classes",
            ["unexpected keyword argument 'in_channels'"],
        ),
        (
            "self, in_channels, num_classes",
            "self, channels, num_classes",
            ["unexpected keyword argument 'in_channels'"],
        ),
        ("class MyNet", "class MyNett", ["there is no my_net.MyNet", "Did you mean my_net.MyNett"]),
    ],
)
def test_mistakes_in_the_contract_take_two_lines(student, old, new, words):
    text = student(changed((old, new)))
    assert len(text.splitlines()) == 2
    for word in words:
        assert word in text


def test_frozen_parameters(student):
    code = NETWORK.replace(
        "    def forward", "        self.requires_grad_(False)\n\n    def forward"
    )
    assert "none has requires_grad=True" in student(code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("_target_:\tmy_net.MyNet\n", ["my_net.yaml:1", "'\\t'"]),
        ("_target_: my_net.MyNet\n\twidth: 1\n", ["my_net.yaml:2"]),
        ("_target_: [my_net.MyNet\n", ["my_net.yaml:2", "expected ',' or ']'"]),
        ('_target_: "my_net.MyNet\n', ["my_net.yaml:2"]),
        ("a: 1\na: 2\n", ["my_net.yaml:2", "duplicate key a"]),
        ("_target_: my_net.MyNet\nwidth 32\n", ["my_net.yaml:2"]),
        ("", ["model has no _target_", "conf/model/"]),
        ("_target_:\n", ["model has no _target_"]),
        ("target: my_net.MyNet\n", ["model has no _target_"]),
        ("- _target_: my_net.MyNet\n", ["model has no _target_"]),
        ("my_net.MyNet\n", ["model has no _target_"]),
        ("_target_: my_nett.MyNet\n", ["there is no my_nett"]),
        ("_target_: MyNet\n", ["there is no MyNet", "_target_ line in conf/model/"]),
        ("_target_: my_net.MyNet\nwidth: 3\n", ["MyNet takes no argument width", "in_channels"]),
        ("_target_: my_net.MyNet\nnum_classes: ???\n", ["model.num_classes is missing"]),
    ],
)
def test_mistakes_in_yaml_take_two_lines(text, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_net", None)
    (tmp_path / "my_net.py").write_text(NETWORK)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "my_net.yaml").write_text(text)

    def run():
        typed = [*OPTIONS, "model=my_net", f"hydra.searchpath=[file://{tmp_path}/conf]"]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("config", typed)
        check(cfg, tmp_path / "run")

    shown_text = shown(run)
    assert shown_text is not None and len(shown_text.splitlines()) == 2, shown_text
    for word in words:
        assert word in shown_text


@pytest.mark.parametrize("text", ["optimizer:\n  lr: 0.5\n", "- lr: 0.5\n"])
def test_a_recipe_without_its_first_line_is_not_ignored(text, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    searched = f"hydra.searchpath=[file://{tmp_path}/conf]"
    cfg = composed([*OPTIONS, "experiment=mine", searched])
    assert "# @package _global_" in shown(check, cfg, tmp_path / "run")


NORM = ("self.fc1(x)", "nn.BatchNorm1d(120)(self.fc1(x))")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("norm", ["my_net.py", "Expected more than 1 value", "data.drop_last=true"]),
        ("loss", ["The loss does not depend on the parameters"]),
        ("callback", ["test_first_hour.py", "in on_train_epoch_start", "KeyError: 'mine'"]),
        ("transform", ["test_first_hour.py", "in forward", "ZeroDivisionError"]),
        ("metric", ["test_first_hour.py", "in update", "ValueError: mine"]),
    ],
)
def test_code_that_fails_in_training_shows_its_frame(kind, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_net", None)
    (tmp_path / "my_net.py").write_text(changed(NORM) if kind == "norm" else NETWORK)
    cfg = composed([*OPTIONS, "model=lenet", "data.batch_size=1" if kind == "norm" else "seed=0"])
    cfg.model._target_ = "my_net.MyNet"
    key, name = FAILING.get(kind, ("", ""))
    if key:
        OmegaConf.update(cfg, key, {"_target_": f"{__name__}.{name}"}, force_add=True)
    text = shown(train, cfg, tmp_path / "run")
    assert len(text.splitlines()) <= 25
    for word in words:
        assert word in text


FAILING = {
    "callback": ("callbacks.mine", "Failing"),
    "transform": ("data.augment", "FailingTransform"),
    "metric": ("metrics.mine", "FailingMetric"),
    "loss": ("task", "NoGradient"),
}


class Failing(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        return {}["mine"]


class FailingTransform(torch.nn.Module):
    def forward(self, image):
        return image / (1 // 0)


class FailingMetric(Metric):
    def update(self, logits, labels):
        raise ValueError("mine")

    def compute(self):
        return torch.zeros(())


class NoGradient(ClassificationTask):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)["loss"].detach()


def test_a_breakpoint_stops_at_a_real_batch(student, monkeypatch):
    stops = []
    monkeypatch.setattr(sys, "breakpointhook", lambda *args, **kwargs: stops.append(1))
    code = changed(("        x = torch.flatten", "        breakpoint()\n        x = torch.flatten"))
    assert student(code) is None and not stops


SLOW = [("simple_v3", 30), ("resnet9", 30), ("quick", 60), ("resnet18", 30)]
SLOW += [
    ("torchvision model.name=mobilenet_v3_small", 30),
    ("efficientnet_lite0", 30),
    ("timm", 30),
]


@pytest.mark.parametrize(
    ("model", "epochs"),
    [("lenet", 25), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_a_shipped_network_memorizes_one_batch(model, epochs, tmp_path):
    if model == "timm":
        pytest.importorskip("timm")
    typed = ["debug=overfit", *f"model={model}".split(), f"trainer.max_epochs={epochs}"]
    typed += ["logger=none"]
    typed += ["trainer.accelerator=cpu", "~callbacks.report", "data.batch_size=8"]
    results = train(composed([*typed, "optimizer=adam", "optimizer.lr=0.003"]), tmp_path)
    assert results["train"]["acc"] == 1
    assert results["val"] is None and results["test"] is None
