"""Caches of decoded images: used again, rebuilt when files change, safe with a full disk."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from src.datamodules import DogCatDataModule
from src.datamodules.cache import ImageFiles, cached, default_cache_folder, find_bad_files


def dog_cat(root, **options) -> DogCatDataModule:
    data = DogCatDataModule(root, image_size=16, val_size=20, **options)
    data.setup("fit")
    return data


@pytest.fixture
def files(dog_cat_root):
    return ImageFiles(sorted(dog_cat_root.rglob("*.jpg"))[:10], 16)


def test_the_second_reading_decodes_nothing(dog_cat_root, monkeypatch):
    first = dog_cat(dog_cat_root)
    monkeypatch.setattr("src.datamodules.cache.decode", None)
    second = dog_cat(dog_cat_root)
    assert torch.equal(first._sets["train"][0], second._sets["train"][0])


def test_a_cache_is_used_however_full_it_has_made_the_disk(dog_cat_root, monkeypatch):
    need = 60 * 3 * 16 * 16

    def disk_usage(path):
        caches = sum(file.stat().st_size for file in default_cache_folder().rglob("images.u8"))
        return SimpleNamespace(free=2.5 * need - caches)

    monkeypatch.setattr("src.datamodules.cache.shutil.disk_usage", disk_usage)
    for _ in range(2):
        assert isinstance(dog_cat(dog_cat_root)._sets["train"][0], torch.Tensor)


def test_the_key_depends_on_files_and_settings(files, tmp_path):
    assert files.key() == ImageFiles(files.paths, 16).key()
    others = [
        ImageFiles(files.paths[1:], 16),
        ImageFiles(files.paths, 17),
        ImageFiles(files.paths, 16, channels=1),
        ImageFiles(files.paths, 16, resize="crop"),
    ]
    assert len({files.key(), *(other.key() for other in others)}) == 5


def test_several_readers_build_one_cache(files, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cached(files, tmp_path)[0], range(4)))
    assert all(torch.equal(results[0], result) for result in results)
    assert len(list(tmp_path.rglob("images.u8"))) == 1
    assert not list(tmp_path.glob(".building-*"))


def test_a_full_disk_is_an_error_that_leaves_nothing(files, tmp_path, monkeypatch):
    def no_space(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space, raising=False)
    with pytest.raises(OSError, match="No space") as caught:
        cached(files, tmp_path)
    assert caught.value.filename == str(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_bad_files_are_found_once(files, tmp_path, monkeypatch):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    files = ImageFiles([*files.paths, tmp_path / "bad.jpg"], 16)
    expected = [(tmp_path / "bad.jpg", "it is not an image")]
    assert find_bad_files(files, tmp_path / "cache") == expected
    assert cached(files, tmp_path / "cache")[1] == expected
    monkeypatch.setattr("src.datamodules.cache.decode", None)
    assert find_bad_files(files, tmp_path / "cache") == expected
