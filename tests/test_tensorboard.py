"""What TensorBoard gets, read back from the event files: curves, pictures, settings; and that getting it changes no run."""

import io
import json
import shutil
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import composed, run_training
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import src
from src.callbacks import Pictures, StepSeed, drawing
from src.datamodules import CIFAR10DataModule, CropFlip, DigitsDataModule, PerImage
from src.errors import UserError
from src.training import train

SMALL = ("model=lenet", "data.image_size=16", "data/augment=crop_flip", "trainer.limit_train_batches=12", "trainer.log_every_n_steps=5")


def run_logged(folder: Path, *overrides: str) -> dict:
    """A run with TensorBoard on; returns the content of results.json."""
    return train(composed(["trainer.accelerator=cpu", *overrides]), folder)


def events(folder: Path, stage: str) -> EventAccumulator:
    return EventAccumulator(str(folder / "tb" / stage), {"scalars": 0, "images": 0, "tensors": 0}).Reload()


def curves(folder: Path, stage: str) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, without those that measure time."""
    read = events(folder, stage)
    tags = [tag for tag in read.Tags()["scalars"] if tag not in ("training/seconds", "training/images_per_second")]
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags}


def picture(folder: Path, stage: str, tag: str) -> Image.Image:
    (event,) = events(folder, stage).Images(tag)
    return Image.open(io.BytesIO(event.encoded_image_string))


@pytest.fixture(scope="module")
def logged_run(tmp_path_factory) -> Path:
    """Two epochs of twelve steps with everything on; the graph must not warn."""
    folder = tmp_path_factory.mktemp("logged")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(trace|Trac|jit).*")
        run_logged(folder, *SMALL[1:], "model=simple_v3", "trainer.max_epochs=2", "logger.tensorboard.log_graph=true")
    return folder


def test_train_and_val_are_two_lines_of_one_chart(logged_run):
    train_curves, val_curves = curves(logged_run, "train"), curves(logged_run, "val")
    assert [step for step, _ in train_curves["metrics/loss"]] == [4, 9, 11, 16, 21, 23]
    assert [step for step, _ in val_curves["metrics/loss"]] == [11, 23]
    assert [step for step, _ in train_curves["metrics/acc"]] == [step for step, _ in val_curves["metrics/acc"]] == [11, 23]
    assert [value for _, value in train_curves["training/lr"]] == pytest.approx([0.02] * 6)
    rows = (logged_run / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    last = dict(zip(columns, rows[-1].split(","), strict=True))
    assert val_curves["metrics/loss"][-1][1] == pytest.approx(float(last["val/loss"]), rel=1e-6)
    assert train_curves["metrics/acc"][-1][1] == pytest.approx(float(last["train/acc"]), rel=1e-6)


def test_the_final_figures_stand_beside_the_settings(logged_run):
    results = json.loads((logged_run / "results.json").read_text())
    figures = {name: points[0][1] for name, points in curves(logged_run, "results").items()}
    wanted = {f"{split}/{name}": results[split][name] for split in ("val", "test") for name in ("loss", "acc")}
    assert figures == pytest.approx(wanted, rel=1e-6)
    test = curves(logged_run, "test")
    assert test["metrics/acc"] == [(24, pytest.approx(results["test"]["acc"], rel=1e-6))]

    written = events(logged_run, "results").SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(written).hparams
    assert hparams["optimizer.lr"].number_value == 0.02 and hparams["optimizer"].string_value == "SGD"
    assert hparams["model"].string_value == "SimpleV3" and hparams["data.augment"].string_value == "CropFlip"
    assert hparams["optimizer.nesterov"].string_value == "true" and hparams["seed"].number_value == 0
    for stage in ("train", "val", "test", "results"):
        assert "hp_metric" not in events(logged_run, stage).Tags()["scalars"]


def test_pictures_of_all_kinds(logged_run):
    assert events(logged_run, "train").Tags()["images"] == ["pictures/augmented"]
    both = {"pictures/answers", "pictures/confusion"}
    features = {f"pictures/features {name}" for name in ("features.0 Conv2d", "features.1 ReLU", "features.6 MaxPool2d")}
    for split, expected in (("val", both | features), ("test", both)):
        assert set(events(logged_run, split).Tags()["images"]) == expected
        for tag in expected:
            image = picture(logged_run, split, tag)
            assert image.mode == "RGB" and min(image.size) > 100 and len(np.unique(np.array(image))) > 10
    before, behind = (
        np.array(picture(logged_run, "val", f"pictures/features {name}")) for name in ("features.0 Conv2d", "features.1 ReLU")
    )
    assert before.shape == behind.shape and (before != behind).any()  # the ReLU works in place
    assert events(logged_run, "train").Tags()["graph"] is True
    assert not list(logged_run.rglob("hparams.yaml"))


def test_answers_are_those_of_the_best_checkpoint(tmp_path, monkeypatch):
    grids = []
    original = drawing.picture_grid

    def keep(pictures, names, answers=None):
        grids.append((pictures, names, answers))
        return original(pictures, names, answers)

    monkeypatch.setattr("src.callbacks.pictures.picture_grid", keep)
    run_logged(tmp_path, *SMALL, "trainer.max_epochs=2", "callbacks.pictures.count=7", "callbacks.pictures.layers=[features.4]")
    net = src.load(tmp_path / "checkpoints" / "best.ckpt")
    (_, _, nothing), *answered = grids
    assert nothing is None and len(answered) == 2
    data = DigitsDataModule(image_size=16)
    data.setup()
    for (pictures, names, answers), split in zip(answered, ("val", "test"), strict=True):
        assert len(pictures) == 7 and answers == [net.classes[i] for i in net(pictures).argmax(1)]
        everything = data.images(split, torch.arange(len(data.labels(split))))
        for shown, name in zip(pictures, names, strict=True):
            assert name in {str(int(data.labels(split)[i])) for i in (everything == shown).flatten(1).all(1).nonzero()[:, 0]}
    assert [tag for tag in events(tmp_path, "val").Tags()["images"] if "features" in tag] == ["pictures/features features.4 ReLU"]


def test_a_misspelt_layer_is_told_before_training(tmp_path):
    with pytest.raises(UserError, match=r"no layer 'feature\.0'") as error:
        run_logged(tmp_path, *SMALL, "callbacks.pictures.layers=[feature.0]")
    assert "features.0" in error.value.remedy and not (tmp_path / "checkpoints").exists()


def test_logging_changes_no_run(tmp_path):
    options = (*SMALL, "trainer.max_epochs=2", "test=false")
    plain = run_training(tmp_path / "plain", *options)
    logged = run_logged(tmp_path / "logged", *options, "logger.tensorboard.log_graph=true")
    assert plain["val"] == logged["val"]
    weights = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("plain", "logged")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("logger", ["none", "csv"])
def test_other_loggers_cost_nothing(logger, tmp_path, monkeypatch):
    monkeypatch.setattr("src.callbacks.pictures.picture_grid", None)
    train(composed(["trainer.accelerator=cpu", *SMALL, "trainer.max_epochs=1", "test=false", f"logger={logger}"]), tmp_path)
    assert not (tmp_path / "tb").exists()


@pytest.mark.parametrize("options", [[], ["callbacks.last.every_n_train_steps=9"], ["trainer.val_check_interval=0.5"]])
def test_a_resumed_run_has_neither_holes_nor_doubles(options, tmp_path, monkeypatch):
    """Cut off behind a checkpoint, so that some of what was logged is logged again."""
    options = (*SMALL, "trainer.max_epochs=3", *options)
    run_logged(tmp_path / "whole", *options)

    class Cut(BaseException):
        pass

    original = StepSeed.on_train_batch_end

    def cut(self, trainer, *args, **kwargs):
        original(self, trainer, *args, **kwargs)
        if self.batches == 22:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(StepSeed, "on_train_batch_end", cut)
        with pytest.raises(Cut):
            run_logged(tmp_path / "parts", *options)
    # The file names order the parts by the second they were begun in.
    for file in (tmp_path / "parts" / "tb").rglob("events.*"):
        kind, out, name, second, rest = file.name.split(".", 4)
        file.rename(file.with_name(f"{kind}.{out}.{name}.{int(second) - 10}.{rest}"))
    assert curves(tmp_path / "parts", "train")["metrics/loss"][-1][0] == 21
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] < 21
    run_logged(tmp_path / "parts", *options, f"resume={last}")
    for stage in ("train", "val", "test", "results"):
        assert curves(tmp_path / "parts", stage) == curves(tmp_path / "whole", stage), stage
    assert events(tmp_path / "parts", "train").Tags()["images"] == ["pictures/augmented"]


def test_a_run_killed_behind_its_checkpoint_has_no_hole(tmp_path, monkeypatch):
    """What an epoch has to show is on the disk before its checkpoint is."""
    from src.loggers import TensorBoard

    class Killed(BaseException):
        pass

    def kill(self, checkpoint_callback):
        original(self, checkpoint_callback)
        last = tmp_path / "checkpoints" / "last.ckpt"
        if last.is_file() and torch.load(last, weights_only=True)["global_step"] == 24:
            kept.update({file: file.read_bytes() for file in (tmp_path / "tb").rglob("events.*")})
            raise Killed

    original, kept = TensorBoard.after_save_checkpoint, {}
    monkeypatch.setattr(TensorBoard, "after_save_checkpoint", kill)
    with pytest.raises(Killed):
        run_logged(tmp_path, *SMALL, "trainer.max_epochs=3")
    for file, content in kept.items():
        file.write_bytes(content)
    for tag in ("metrics/loss", "metrics/acc"):
        assert curves(tmp_path, "train")[tag][-1][0] == curves(tmp_path, "val")[tag][-1][0] == 23


def test_a_finished_run_made_longer_shows_one_result(tmp_path):
    run_logged(tmp_path, *SMALL, "trainer.max_epochs=1")
    run_logged(tmp_path, *SMALL, "trainer.max_epochs=2", f"resume={tmp_path / 'checkpoints' / 'last.ckpt'}")
    assert [step for step, _ in curves(tmp_path, "test")["metrics/loss"]] == [24]
    assert [step for step, _ in curves(tmp_path, "results")["test/loss"]] == [24]
    written = events(tmp_path, "results").SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    assert metadata.parse_session_start_info_plugin_data(written).hparams["trainer.max_epochs"].number_value == 2


def test_a_new_run_in_an_old_folder_begins_anew(tmp_path):
    run_logged(tmp_path, *SMALL, "trainer.max_epochs=2")
    shutil.rmtree(tmp_path / "checkpoints")  # else the folder is taken
    run_logged(tmp_path, *SMALL, "trainer.max_epochs=1", "test=false")
    assert [step for step, _ in curves(tmp_path, "train")["metrics/acc"]] == [11]
    assert [step for step, _ in curves(tmp_path, "val")["metrics/loss"]] == [11]
    assert set(curves(tmp_path, "results")) == {"val/loss", "val/acc"} and not (tmp_path / "tb" / "test").exists()


def test_augmented_pictures_are_those_that_training_may_see(cifar_root):
    """RGB and grey, drawn in batches or picture by picture."""
    from torchvision.transforms import v2

    data = CIFAR10DataModule(cifar_root, val_size=20, augment=CropFlip(padding=4))
    data.setup("fit")
    positions = torch.arange(9)
    torch.manual_seed(3)
    expected = data.augment(data.images("train", positions))
    torch.manual_seed(3)
    assert torch.equal(data.augmented(positions), expected) and (expected != data.images("train", positions)).any()

    data = CIFAR10DataModule(cifar_root, val_size=20, channels=1, augment=PerImage(v2.RandomHorizontalFlip(1.0)))
    data.setup("fit")
    assert torch.equal(data.augmented(positions), data.images("train", positions).flip(3))

    data = DigitsDataModule(image_size=16)
    data.setup("fit")
    assert torch.equal(data.augmented(positions), data.images("train", positions))


def test_a_network_composed_by_hand(tmp_path):
    """No convolution, so no feature maps; the logger and the callback without any config."""
    from src.loggers import TensorBoard
    from src.tasks import ClassificationTask

    data = DigitsDataModule(image_size=8)
    task = ClassificationTask(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), data.classes, data.mean, data.std)
    trainer = L.Trainer(
        max_steps=2, log_every_n_steps=1, accelerator="cpu", logger=TensorBoard(tmp_path, log_graph=True), callbacks=[Pictures()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert set(events(tmp_path, "test").Tags()["images"]) == {"pictures/answers", "pictures/confusion"}


def test_feature_maps_are_what_the_layers_put_out():
    from torchvision.models import resnet18, vit_b_16

    from src.callbacks.pictures import outputs

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = resnet18().eval()
    found = outputs(network, images)
    assert list(found) == ["conv1 Conv2d", "relu ReLU", "maxpool MaxPool2d"]
    with torch.no_grad():
        conv = network.conv1(images)
        assert torch.equal(found["conv1 Conv2d"], conv) and torch.equal(found["relu ReLU"], network.bn1(conv).relu())
    named = outputs(network, images, ["layer4.1", "fc"])  # a block; and what is no map is left out
    assert {name: tuple(maps.shape) for name, maps in named.items()} == {"layer4.1 BasicBlock": (2, 512, 1, 1)}
    assert not any(module._forward_hooks for module in network.modules())
    assert list(outputs(vit_b_16(image_size=32).eval(), images)) == ["conv_proj Conv2d"]


def test_drawing_stays_small_with_many_classes_and_large_pictures():
    counts = torch.eye(1000, dtype=torch.long) * 50
    sheet = drawing.confusion_matrix(counts, [f"class {i}" for i in range(1000)])
    assert max(sheet.shape) < 1100
    assert (sheet[-500, -500] == drawing.BLUE).any() or (sheet == drawing.BLUE).all(-1).sum() == 1000
    grid = drawing.picture_grid(torch.zeros(24, 3, 224, 224, dtype=torch.uint8), ["a long name of a class"] * 24)
    assert max(grid.shape) < 1000 and (grid.reshape(-1, 3) == 0).all(1).sum() >= 24 * 96 * 96
    maps = drawing.feature_maps(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.full((4, 512, 7, 7), float("nan")))
    assert max(maps.shape) < 1200


def test_the_confusion_matrix_puts_true_classes_downwards():
    counts = torch.tensor([[8, 2], [0, 0]])
    sheet = drawing.confusion_matrix(counts, ["cat", "dog"])
    cells = sheet[-12 - 96 : -12, -12 - 96 : -12]
    right, wrong, unseen = cells[2, 2], cells[2, 50], cells[50, 2]
    assert (right < wrong).all() and (wrong < unseen).all() and (unseen == 255).all()


def test_names_in_other_scripts_are_drawn():
    sheet = drawing.picture_grid(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), ["猫", "собака", "<b>&amp;"], ["猫", "кот", ""])
    assert (sheet == drawing.GREEN).all(-1).any() and (sheet == drawing.RED).all(-1).any()
