"""Data sets: facts, splits, batches, and what is said about files that are missing, damaged or wrong."""

import gzip
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import pictures, write_folder, write_idx
from PIL import Image

from src.datamodules import (
    CIFAR10DataModule,
    DigitsDataModule,
    DogCatDataModule,
    FashionMNISTDataModule,
    ImageFolderDataModule,
    cifar10,
    download,
    fashion_mnist,
)
from src.datamodules.picture_files import default_cache_folder
from src.errors import UserError


def ready(data, stage=None):
    data.prepare_data()
    data.setup(stage)
    return data


@pytest.fixture
def offline(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network in the tests")

    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)


# Splits


def test_splits_are_disjoint_stratified_and_the_same_for_every_seed(monkeypatch):
    hashes = set()
    for seed in ("0", "7"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = ready(DigitsDataModule(val_size=0.2), "fit")
        hashes.add(data.split_hash())
    assert len(hashes) == 1
    assert DigitsDataModule(val_size=0.2, split_seed=1).split_hash() not in hashes
    train, val = data._indices["train"], data._indices["val"]
    assert not set(train.tolist()) & set(val.tolist()) and len(train) + len(val) == 1437
    share = torch.bincount(data.labels("val")) / torch.bincount(torch.cat([data.labels("train"), data.labels("val")]))
    assert (share - 0.2).abs().max() < 0.01


def test_test_pictures_of_the_digits_are_not_in_train():
    data = ready(DigitsDataModule(image_size=8))
    train = {image.numpy().tobytes() for image in data._sets["train"][0]}
    assert len(data._sets["test"][0]) == 360
    assert sum(image.numpy().tobytes() in train for image in data._sets["test"][0]) == 0


def test_folds_partition_the_training_pictures():
    folds = [ready(DigitsDataModule(num_folds=5, fold=k), "fit")._indices["val"].tolist() for k in range(5)]
    assert sorted(sum(folds, [])) == list(range(1437))


@pytest.mark.parametrize("val_size", [0, 1437, 1.0, 5000, 3])
def test_impossible_validation_sizes(val_size):
    with pytest.raises(UserError, match="val_size"):
        ready(DigitsDataModule(val_size=val_size), "fit")


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"balance": "sometimes"}, {"num_folds": 3, "fold": 3}, {"image_size": -1}])
def test_impossible_choices(options):
    with pytest.raises(UserError, match="data"):
        DigitsDataModule(**options)


# Original files


def test_cifar10_original_files(cifar_root):
    data = ready(CIFAR10DataModule(cifar_root, batch_size=16, val_size=20))
    assert data.sizes() == {"train": 180, "val": 20, "test": 30}
    images, labels = next(iter(data.train_dataloader()))
    assert images.dtype == torch.uint8 and images.shape == (16, 3, 32, 32) and labels.dtype == torch.int64


def test_cifar10_archive_put_there_by_hand_is_verified_and_unpacked(cifar_archive, tmp_path, monkeypatch, offline):
    shutil.copy(cifar_archive, tmp_path)
    with pytest.raises(UserError, match="its MD5 is"):
        ready(CIFAR10DataModule(tmp_path))
    assert not (tmp_path / "cifar-10-batches-py").exists()
    monkeypatch.setattr(cifar10, "MD5", download.md5(cifar_archive))
    assert ready(CIFAR10DataModule(tmp_path, val_size=20)).sizes()["train"] == 180


def test_a_truncated_archive_leaves_nothing_behind(cifar_archive, tmp_path, monkeypatch):
    archive = tmp_path / cifar10.ARCHIVE
    archive.write_bytes(cifar_archive.read_bytes()[:20_000])
    monkeypatch.setattr(cifar10, "MD5", download.md5(archive))
    with pytest.raises(UserError, match="cannot be unpacked"):
        CIFAR10DataModule(tmp_path).prepare_data()
    assert {path.name for path in tmp_path.iterdir()} <= {archive.name, f"{archive.name}.lock"}


def test_missing_files_say_what_to_get_and_where_to_put_it(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        CIFAR10DataModule(tmp_path).prepare_data()
    assert cifar10.MD5 in str(caught.value) and str(tmp_path / cifar10.ARCHIVE) in caught.value.remedy
    with pytest.raises(UserError) as caught:
        FashionMNISTDataModule(tmp_path).prepare_data()
    assert "8d4fb7e6c68d591d4c3dfef9ec88bf0d" in str(caught.value) and "https://" in str(caught.value)


def test_a_download_is_resumed_and_checked(tmp_path, monkeypatch):
    """Against a real server on this machine, which breaks off once."""
    import hashlib
    import http.server
    import threading

    content = os.urandom(200_000)

    class Server(http.server.BaseHTTPRequestHandler):
        requests: list = []

        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.requests.append(start)
            body = content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if start else body[:70_000])  # the first answer is cut off

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/file"
    checksum = hashlib.md5(content).hexdigest()
    with pytest.raises(UserError, match="broke after 70000 of 200000"):
        download.fetch(tmp_path / "file", [url], checksum)
    assert not (tmp_path / "file").exists()
    download.fetch(tmp_path / "file", [url], checksum)
    assert (tmp_path / "file").read_bytes() == content and Server.requests == [0, 70_000]
    with pytest.raises(UserError, match="its MD5 is"):
        download.fetch(tmp_path / "other", [url, url], "0" * 32)
    assert not (tmp_path / "other").exists()
    server.shutdown()


def test_a_pickle_that_wants_to_run_code_is_refused(cifar_root, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/ran",))

    shutil.copytree(cifar_root, tmp_path / "root")
    batch = tmp_path / "root" / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(UserError, match="wants to call"):
        ready(CIFAR10DataModule(tmp_path / "root"), "fit")
    assert not (tmp_path / "ran").exists()


def test_labels_beyond_the_classes(cifar_root, tmp_path):
    shutil.copytree(cifar_root, tmp_path / "root")
    content = {b"data": pictures(10, 3, 32).reshape(10, -1), b"labels": [11] * 10}
    (tmp_path / "root" / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match="10 classes"):
        ready(CIFAR10DataModule(tmp_path / "root"), "fit")


def test_fashion_mnist_original_files_packed_or_not(fashion_root, tmp_path):
    packed = ready(FashionMNISTDataModule(fashion_root, val_size=20))
    assert packed.sizes() == {"train": 180, "val": 20, "test": 30}
    for file in (fashion_root / "FashionMNIST" / "raw").iterdir():
        (tmp_path / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    loose = ready(FashionMNISTDataModule(tmp_path, val_size=20))
    assert torch.equal(packed._sets["train"][0], loose._sets["train"][0])


@pytest.mark.parametrize("damage", ["truncated", "not gzip", "wrong header"])
def test_damaged_idx_files(fashion_root, tmp_path, damage):
    shutil.copytree(fashion_root, tmp_path / "root")
    file = tmp_path / "root" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "not gzip":
        file.write_bytes(b"<html>404</html>")
    else:
        write_idx(file, np.zeros(5, np.uint8))
    with pytest.raises(UserError, match="train-images"):
        ready(FashionMNISTDataModule(tmp_path / "root"), "fit")


# Folders of pictures


def test_one_folder_is_split_and_no_file_moves(tmp_path):
    root = write_folder(tmp_path / "animals", {"bee": 20, "ant": 30})
    (root / ".ipynb_checkpoints").mkdir()
    before = sorted(path for path in root.rglob("*"))
    data = ready(ImageFolderDataModule(root, image_size=24, val_size=10, test_size=10))
    assert data.classes == ["ant", "bee"] and data.sizes() == {"train": 30, "val": 10, "test": 10}
    assert sorted(path for path in root.rglob("*")) == before
    assert torch.bincount(data.labels("val")).tolist() == [6, 4]


def test_ready_made_folders_and_label_image_names(tmp_path):
    for split, counts in (("train", 12), ("valid", 5), ("test", 4)):
        write_folder(tmp_path / split, {"ants_image": counts, "bees_image": counts})
        (tmp_path / split / "ants_label").mkdir()
    data = ready(ImageFolderDataModule(tmp_path, image_size=24))
    assert data.classes == ["ants", "bees"] and data.sizes() == {"train": 24, "val": 10, "test": 8}


def test_dog_cat_keeps_250_for_validation_by_default(tmp_path):
    write_folder(tmp_path, {"cat": 140, "dog": 160}, size=8)
    data = ready(DogCatDataModule(tmp_path, image_size=8))
    assert data.sizes() == {"train": 50, "val": 250} and data.class_weights is None and not data.has_test


def test_dog_cat_archive_put_there_by_hand(dog_cat_root, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "dog_cat.tar", "w") as tar:
        tar.add(dog_cat_root, "dog_cat")
    assert ready(DogCatDataModule(tmp_path, image_size=16, val_size=20)).sizes() == {"train": 40, "val": 20}
    with pytest.raises(UserError, match="github.com"):
        ready(DogCatDataModule(tmp_path / "empty"))


def test_the_second_reading_decodes_nothing(dog_cat_root, monkeypatch):
    first = ready(DogCatDataModule(dog_cat_root, image_size=16, val_size=20), "fit")
    monkeypatch.setattr("src.datamodules.picture_files.decode", None)
    second = ready(DogCatDataModule(dog_cat_root, image_size=16, val_size=20), "fit")
    assert torch.equal(first._sets["train"][0], second._sets["train"][0])


def test_a_cache_that_is_there_is_used_however_full_it_has_made_the_disk(dog_cat_root, monkeypatch):
    need = 60 * 3 * 16 * 16

    def disk(path):
        caches = sum(file.stat().st_size for file in default_cache_folder().rglob("pictures.u8"))
        return SimpleNamespace(free=2.5 * need - caches)

    monkeypatch.setattr("src.datamodules.picture_files.shutil.disk_usage", disk)
    for _ in range(2):
        data = ready(DogCatDataModule(dog_cat_root, image_size=16, val_size=20), "fit")
        assert isinstance(data._sets["train"][0], torch.Tensor)


def test_folds_and_a_validation_split_of_its_own_are_refused_together(tmp_path):
    for split in ("train", "val"):
        write_folder(tmp_path / split, {"a": 8, "b": 8}, size=8)
    with pytest.raises(UserError, match="validation split of their own"):
        ready(ImageFolderDataModule(tmp_path, image_size=8, num_folds=2), "fit")


def test_streamed_and_cached_pictures_are_the_same(dog_cat_root):
    batches = []
    for cache_gb, workers in ((None, 0), (0, 0), (0, 2)):
        data = ready(DogCatDataModule(dog_cat_root, image_size=16, val_size=20, cache_gb=cache_gb, num_workers=workers), "fit")
        batches.append(list(data.train_dataloader()))
    for other in batches[1:]:
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(batches[0], other, strict=True))


def test_files_that_are_no_pictures_stop_or_are_skipped(tmp_path):
    root = write_folder(tmp_path / "root", {"a": 8, "b": 8})
    (root / "a" / "broken.jpg").write_bytes(b"no picture")
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "cut.jpg").write_bytes((root / "b" / "000.jpg").read_bytes()[:300])
    with pytest.raises(UserError) as caught:
        ready(ImageFolderDataModule(root, image_size=16, val_size=4), "fit")
    assert all(name in caught.value.problem for name in ("broken.jpg", "empty.png", "cut.jpg"))
    data = ready(ImageFolderDataModule(root, image_size=16, val_size=4, bad_files="skip"), "fit")
    assert data.sizes() == {"train": 12, "val": 4}
    assert next(iter(data.train_dataloader()))[0].float().mean() > 0


def test_an_empty_class_folder_and_a_single_class(tmp_path):
    root = write_folder(tmp_path / "root", {"a": 4, "b": 4})
    (root / "c").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        ready(ImageFolderDataModule(root, image_size=16), "fit")
    with pytest.raises(UserError, match="at least 2"):
        ready(ImageFolderDataModule(write_folder(tmp_path / "one", {"a": 4}), image_size=16), "fit")


def test_grey_rgba_palette_and_16_bit_pictures_in_a_colour_set(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    grey = Image.fromarray(np.full((9, 12), 100, np.uint8))
    grey.save(folder / "grey.png")
    Image.fromarray(np.full((9, 12, 4), (100, 100, 100, 255), np.uint8)).save(folder / "rgba.png")
    grey.convert("RGB").convert("P").save(folder / "palette.png")
    Image.fromarray(np.full((9, 12), 100 * 257, np.uint16)).save(folder / "sixteen.png")
    shutil.copytree(folder, tmp_path / "b")
    data = ready(ImageFolderDataModule(tmp_path, image_size=8, val_size=2), "fit")
    images = data._sets["train"][0]
    assert images.shape == (8, 3, 8, 8) and (images.int() - 100).abs().max() <= 2


def test_uneven_folders(tmp_path):
    root = write_folder(tmp_path / "root", {"few": 10, "many": 40}, size=8)
    weighted = ready(ImageFolderDataModule(root, image_size=8, val_size=10, balance="loss"), "fit")
    assert weighted.class_weights.tolist() == pytest.approx([40 / (2 * 8), 40 / (2 * 32)])
    sampled = ready(ImageFolderDataModule(root, image_size=8, val_size=10, balance="sampler", batch_size=40), "fit")
    loader = sampled.train_dataloader()
    drawn = []
    for epoch in range(30):
        loader.sampler.set_epoch(epoch)
        drawn += [labels for _, labels in loader]
    assert abs(torch.cat(drawn).float().mean() - 0.5) < 0.06
