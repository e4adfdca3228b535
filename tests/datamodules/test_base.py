"""The contract of a data set: splits, labels, what `load` may return, what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import random_images, write_image_folder
from torch.utils.data import TensorDataset

from src.config.validate import validate
from src.datamodules import (
    CropFlip,
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    PerImage,
)
from src.errors import UserError


class OwnData(ImageDataModule):
    """A data set that returns from `load` what it is given."""

    classes = ["a", "b"]
    channels = 3
    native_size = 8
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, train, **common):
        super().__init__(val_size=4, **common)
        self.given = {"train": train}

    def load(self, split):
        return self.given.get(split)


IMAGES = random_images(20, 3, 8)
LABELS = np.arange(20) % 2


def trainer(device="cpu", **changes) -> SimpleNamespace:
    """What a data module reads of Lightning's trainer."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    facts = {"training": True, "world_size": 1, "global_rank": 0, "overfit_batches": 0}
    return SimpleNamespace(strategy=strategy, **(facts | changes))


def train_images(data: ImageDataModule) -> torch.Tensor:
    data.setup("fit")
    return data._sets["train"][0]


def test_splits_are_disjoint_stratified_and_independent_of_the_seed(monkeypatch):
    hashes = set()
    for seed in ("0", "7"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = DigitsDataModule(val_size=0.2)
        hashes.add(data.split_hash())
    assert len(hashes) == 1
    assert DigitsDataModule(val_size=0.2, split_seed=1).split_hash() not in hashes
    train, val = data._indices["train"], data._indices["val"]
    assert not set(train.tolist()) & set(val.tolist())
    assert data.sizes() == {"train": 1149, "val": 288, "test": 360}
    counts = torch.bincount(data.labels("val"))
    all_counts = counts + torch.bincount(data.labels("train"))
    assert (counts / all_counts - 0.2).abs().max() < 0.01


def test_splits_equal_those_of_earlier_versions():
    data = DigitsDataModule()
    assert data.split_hash() == "6b6df0ac71ad8d95"
    assert data.fingerprint() == "e870deb45c827d88"


def test_folds_partition_the_training_images():
    positions = []
    for fold in range(5):
        data = DigitsDataModule(num_folds=5, fold=fold)
        data.setup("fit")
        positions += data._indices["val"].tolist()
    assert sorted(positions) == list(range(1437))


def test_folds_and_an_own_validation_split_are_refused_together(tmp_path):
    for split in ("train", "val"):
        write_image_folder(tmp_path / split, {"a": 8, "b": 8}, size=8)
    with pytest.raises(UserError, match="own validation split"):
        ImageFolderDataModule(tmp_path, image_size=8, num_folds=2).setup("fit")


@pytest.mark.parametrize("val_size", [0, 1437, 1.0, 5000, 3])
def test_impossible_validation_sizes(val_size):
    with pytest.raises(UserError, match="val_size"):
        DigitsDataModule(val_size=val_size).setup("fit")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"balance": "sometimes"},
        {"num_folds": 1},
        {"image_size": -1},
        {"mixup": float("nan")},
        {"num_workers": -1},
        {"std": [0.0]},
        {"val_size": 1.5},
        {"augment": {"_target_": "src.datamodules.CropFlip", "flip": 2}},
        {"augment": {"_target_": "src.datamodules.CropFlip", "padding": [1, 2]}},
    ],
)
def test_settings_that_a_config_may_not_have(options):
    with pytest.raises(UserError, match=f"data.*{next(iter(options))}"):
        validate({"data": {"_target_": "src.datamodules.DigitsDataModule", **options}})


@pytest.mark.parametrize("options", [{"channels": 2}, {"mean": [0.5, 0.5]}])
def test_normalization_that_does_not_fit_the_channels(options):
    with pytest.raises(UserError, match="data.mean has . values for . channels"):
        DigitsDataModule(**options)


def test_a_fold_that_does_not_exist():
    with pytest.raises(UserError, match="data.fold=3"):
        DigitsDataModule(num_folds=3, fold=3).setup("fit")


def test_a_split_smaller_than_the_number_of_processes_is_refused():
    data = DigitsDataModule(val_size=11)
    data.trainer = trainer(world_size=12)
    with pytest.raises(UserError, match="11 images for 12 processes") as caught:
        data.val_dataloader()
    assert "data.val_size" in caught.value.remedy


# What `load` may return

UINT8 = torch.from_numpy(IMAGES)


@pytest.mark.parametrize(
    "images",
    [
        UINT8,
        IMAGES,
        IMAGES.transpose(0, 2, 3, 1),
        UINT8.long(),
        UINT8.float() / 255,
        IMAGES.astype(">u2"),
        IMAGES.astype(np.float64) / 255,
    ],
)
def test_all_usual_formats_of_images_give_the_same(images):
    assert torch.equal(train_images(OwnData((images, LABELS))), UINT8)


def test_grey_images_without_a_channel_axis_and_of_another_size():
    data = OwnData((IMAGES[:, 0], LABELS), image_size=16)
    assert train_images(data).shape == (20, 1, 16, 16)
    assert next(iter(data.train_dataloader()))[0].shape[1] == 1
    assert data.images("val", torch.arange(2)).shape == (2, 3, 16, 16)


def test_a_map_style_dataset_may_be_returned():
    data = OwnData(TensorDataset(UINT8, torch.from_numpy(LABELS)))
    assert torch.equal(train_images(data), UINT8)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (UINT8.float() / 128 - 1, r"float32 of shape \(20, 3, 8, 8\) with values from -0.98"),
        (UINT8.float(), "values from 2 to 253"),
        (UINT8.float() * float("nan"), "nan"),
        (np.array(["x"] * 20), "type <U1"),
        (UINT8[:, :2], r"shape \(20, 2, 8, 8\)"),
        (UINT8[:5], "5 images but 20 labels"),
        ([1, 2], "type list"),
    ],
)
def test_other_images_are_refused_in_words(images, words):
    with pytest.raises(UserError, match=words):
        OwnData((images, LABELS)).setup("fit")


@pytest.mark.parametrize("labels", [LABELS.tolist(), LABELS.astype(np.float32), LABELS[:, None]])
def test_all_usual_formats_of_labels_give_the_same(labels):
    data = OwnData((UINT8, labels))
    data.setup("fit")
    assert data._sets["train"][1].dtype == torch.int64
    assert data._sets["train"][1].tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat"] * 20, "such as .*cat"),
        (np.full(20, 0.5), "not whole numbers"),
        (np.eye(20), "shape"),
        (LABELS + 1, "from 1 to 2, but there are 2 classes"),
        ([], "no images"),
    ],
)
def test_other_labels_are_refused_in_words(labels, words):
    with pytest.raises(UserError, match=words):
        OwnData((UINT8, labels)).setup("fit")


def test_no_training_images():
    with pytest.raises(UserError, match="returns nothing"):
        OwnData(None).setup("fit")


# Labels and classes


def test_labels_are_remapped_by_name():
    data = OwnData((UINT8, LABELS))
    data.remap_labels(["c", "b", "a"])
    data.setup("fit")
    assert data._sets["train"][1].tolist() == [2, 1] * 10
    with pytest.raises(UserError, match="does not know 1 of the classes of these data: b"):
        data.remap_labels(["a", "c"])


def test_class_weights_and_balanced_sampling(tmp_path):
    root = write_image_folder(tmp_path / "root", {"few": 10, "many": 40}, size=8)
    options = {"image_size": 8, "val_size": 10}
    weighted = ImageFolderDataModule(root, balance="loss", **options)
    weighted.setup("fit")
    assert weighted.class_weights.tolist() == pytest.approx([40 / (2 * 8), 40 / (2 * 32)])
    sampled = ImageFolderDataModule(root, balance="sampler", batch_size=40, **options)
    loader = sampled.train_dataloader()
    assert sampled.class_weights is None
    drawn = []
    for epoch in range(30):
        loader.sampler.set_epoch(epoch)
        drawn += [labels for _, labels in loader]
    assert abs(torch.cat(drawn).float().mean() - 0.5) < 0.06


# Batches


def test_grey_images_as_rgb():
    data = DigitsDataModule(channels=3, image_size=16)
    data.setup("fit")
    assert data.images("val", torch.arange(4)).shape == (4, 3, 16, 16)
    assert data.mean == (0.3053,) * 3


def test_cached_features_take_the_place_of_images_in_order():
    data = OwnData((UINT8, LABELS), batch_size=4)
    data.setup("fit")
    data.cache_features("train", lambda images: images.flatten(1).float())
    expected = data.images("train", torch.arange(16)).flatten(1).float()
    features, labels = next(iter(data.train_dataloader()))
    assert features.shape == (4, 192)
    matches = (features[:, None] == expected[None]).all(2).nonzero()[:, 1]
    assert torch.equal(data.labels("train")[matches], labels)
    assert data.on_after_batch_transfer((features, labels), 0)[0] is features
    assert next(iter(data.val_dataloader()))[0].ndim == 4


@pytest.mark.parametrize("mixing", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixing_gives_class_probabilities_in_training_only(mixing):
    data = OwnData((UINT8, LABELS), **mixing)
    batch = (UINT8, torch.from_numpy(LABELS))
    data.trainer = trainer()
    images, labels = data.on_after_batch_transfer(batch, 0)
    assert images.is_floating_point() and images.max() <= 255
    assert labels.shape == (20, 2) and torch.allclose(labels.sum(1), torch.ones(20))
    data.trainer = trainer(training=False)
    assert data.on_after_batch_transfer(batch, 0)[0].dtype == torch.uint8


def test_augmented_images_are_those_of_training():
    data = OwnData((UINT8, LABELS), augment=CropFlip(2))
    data.setup("fit")
    positions = torch.arange(6)
    torch.manual_seed(0)
    expected = data.augment(data.images("train", positions))
    torch.manual_seed(0)
    assert torch.equal(data.augmented(positions), expected)
    data.augment = PerImage(lambda image: image.flip(2))
    assert torch.equal(data.augmented(positions), data.images("train", positions).flip(3))
    data.augment = None
    assert torch.equal(data.augmented(positions), data.images("train", positions))


def test_overfit_batches_repeats_the_same_batches():
    data = OwnData((UINT8, LABELS), batch_size=4, balance="sampler")
    data.trainer = trainer(overfit_batches=1)
    loader = data.train_dataloader()
    first = next(iter(loader))[1]
    loader.sampler.set_epoch(1)
    assert torch.equal(first, next(iter(loader))[1])


def test_device_resident_images_are_moved_once():
    data = OwnData((UINT8, LABELS), device_resident=True)
    data.trainer = trainer("meta")
    data.train_dataloader()
    assert data._sets["train"][0] is data._sets["val"][0]
    assert data._sets["train"][0].device.type == "meta"
    with pytest.raises(UserError, match="device_resident"):
        OwnData((UINT8, LABELS), device_resident=True, augment=PerImage(torch.flip)).setup("fit")


def test_drop_last_may_leave_a_batch():
    with pytest.raises(UserError, match="drop_last"):
        OwnData((UINT8, LABELS), drop_last=True, batch_size=17).train_dataloader()


def test_no_test_split():
    data = OwnData((UINT8, LABELS))
    assert not data.has_test
    with pytest.raises(UserError, match="no test split"):
        data.test_dataloader()
