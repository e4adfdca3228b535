"""Images in folders: one folder per class, with or without train, val and test folders."""

import hashlib
import logging
import os
from collections.abc import Container
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat

from ..errors import UserError
from ..runs.text import printable
from .base import ImageDataModule
from .cache import BadFiles, ImageFiles, Rows, cached, default_cache_folder, find_bad_files, fits
from .folders import (
    SPLITS,
    LabelledFiles,
    class_folders,
    file_size,
    list_files,
    select,
    split_folders,
    unwrap,
)
from .groups import match_groups
from .splits import Groups, hold_out

log = logging.getLogger(__name__)


class ImageFolderDataModule(ImageDataModule):
    """A folder of images of any size and colour, one folder per class.

    Three layouts are possible: `root/<class>/...`, split by seed; `root/train/<class>/...` with
    `val` and `test` beside it where they exist (also as `Training`, `valid`, ..., see folders.py);
    and each of them with folders named `<class>_image`. All of it may be wrapped in one more
    folder. The classes are the sorted names of the folders. No file is moved.

    Args:
        test_size: fraction (below 1) or number of images that are held out as the test split
            where there is no `test` folder; 0 for none.
        bad_files: `stop` at files that cannot be decoded, or `skip` them; they are named anyway.
        group_by: regular expression for the path of an image below `root`; what its first group
            matches, or all of it, is the group of the image, and no split divides a group.
        cache_dir: folder for decoded images; None is a folder of this project in the user's cache.
        common: see `ImageDataModule`.
    """

    channels = 3
    native_size = 224
    mean = (0.485, 0.456, 0.406)  # of ImageNet, as pretrained networks expect
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str | os.PathLike = "data",
        test_size: NonNegativeFloat = 0,
        bad_files: Literal["stop", "skip"] = "stop",
        group_by: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        **common: Any,
    ):
        super().__init__(root=root, **common)
        self.test_size, self.bad_files, self.group_by = test_size, bad_files, group_by
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_folder()
        self.whole = False  # evaluate all images of a folder without splits, see engine/rebuild.py
        self._base: Path | None = None
        self._classes: list[str] | None = None
        self._paths: dict[str, list[Path]] = {}  # split -> files of its set, as loaded
        self._listed: dict[Path, LabelledFiles] = {}  # folder -> its files: a million take a minute

    # Layout

    @property
    def base(self) -> Path:
        """The folder that holds the class folders, or the train, val and test folders."""
        if self._base is None:
            if not self.root.is_dir():
                raise UserError(
                    f"There is no folder {self.root}.",
                    "Give the folder of your images as data.root.",
                )
            self._base = unwrap(self.root)
        return self._base

    @property
    def classes(self) -> list[str]:  # type: ignore[override]  # other data sets have it as a fact
        """Sorted names of the class folders, without `_image`."""
        if self._classes is None:
            self._classes = list(class_folders(self._train_folder))
        return self._classes

    @property
    def has_test(self) -> bool:
        return self.split_folder("test") is not None or self.test_size > 0

    @property
    def _train_folder(self) -> Path:
        """The folder that the classes are read from; without `train`, that of another split."""
        folders = self._split_folders
        return next((folders[split] for split in SPLITS if split in folders), self.base)

    @cached_property
    def _split_folders(self) -> dict[str, Path]:
        return split_folders(self.base)

    def split_folder(self, split: str) -> Path | None:
        """The folder with the class folders of a split, or None.

        Without split folders, this is `base` for `train` (or for `test`, see `whole`).
        """
        folders = self._split_folders
        if split in folders:
            return folders[split]
        if split == "train" and not folders:
            return self.base
        if split == "test" and self.whole and len(folders) < 2:
            return self._train_folder  # the only folder
        return None

    # Files

    def files(self, split: str) -> LabelledFiles | None:
        """The files of `train`, `val` or `test` with labels.

        Returns:
            None where there is no such split; validation files are then a part of `train`.

        Raises:
            UserError: a class without images, or a class that `train` does not have.
        """
        folder = self.split_folder(split)
        held_out = self.test_size > 0 and self.split_folder("test") is None
        if held_out and split in ("train", "test"):
            every = self._files_below(self._train_folder)
            least = 3 if self.split_folder("val") is None else 2
            names = dict(enumerate(self.classes))
            size, seed = self.test_size, self.split_seed
            groups = self.groups_of(every[0])
            train, test = hold_out(every[1], "data.test_size", size, seed, names, least, groups)
            return select(every, train if split == "train" else test)
        if folder is None and split == "train":
            raise UserError(
                f"{self.base} has images of other splits, but none to train on.",
                "Name those to train on train, as val and test are named.",
            )
        return None if folder is None else self._files_below(folder)

    def split_files(self, without: Container[Path] = ()) -> dict[str, LabelledFiles]:
        """The files of all splits as training uses them, without some that are unusable.

        Raises:
            UserError: a split that cannot be used, see `files` and `split_train`.
        """
        splits = {}
        for split in SPLITS:
            labelled = self.files(split)
            if labelled is not None:
                keep = [i for i, path in enumerate(labelled[0]) if path not in without]
                splits[split] = select(labelled, torch.tensor(keep, dtype=torch.long))
            elif split == "val":
                every = splits["train"]
                self.groups = self.groups_of(every[0])
                train, val = self.split_train(every[1])
                splits |= {"train": select(every, train), "val": select(every, val)}
        return splits

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit") and not self._sets:
            self.split_files()  # so that a mistake in the test split is found before the training
        super().setup(stage)

    def _files_below(self, folder: Path) -> LabelledFiles:
        if folder not in self._listed:
            least = 2 if folder == self._train_folder else 1
            self._listed[folder] = list_files(folder, self.classes, least)
        return self._listed[folder]

    def fingerprint(self) -> str:
        """Identifies the training images by their names and sizes, without reading them."""
        folder = self._train_folder
        digest = hashlib.blake2b(digest_size=8)
        for path in self._files_below(folder)[0]:
            line = f"{path.relative_to(folder).as_posix()}\0{file_size(path)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def names(self, split: str, positions: torch.Tensor) -> list[str]:
        # Validation may be a part of train.
        paths = self._paths[split if split in self._paths else "train"]
        files = [paths[i] for i in self._indices[split][positions].tolist()]
        return [self._name(path) for path in files]

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.base).as_posix()
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def groups_of(self, paths: list[Path]) -> Groups | None:
        """The groups of files by `group_by`, or None without it."""
        if self.group_by is None:
            return None
        return match_groups(self.group_by, [self._name(path) for path in paths])

    # Images

    def load(self, split: str) -> Any:
        return self.load_at(split, self.image_size)

    def load_at(self, split: str, size: int) -> Any:
        labelled = self.files(split)
        if labelled is None:
            return None
        paths, labels = labelled
        files = ImageFiles(paths, size, self.channels, self.resize, self.mean)
        images: Any = files
        bad: BadFiles = []
        if fits(files, self.cache_dir, self.cache_gb):
            images, bad = cached(files, self.cache_dir)
        elif self.bad_files == "skip":
            bad = find_bad_files(files, self.cache_dir)
        if bad:
            self._report(bad, len(paths))
            unusable = {path for path, _ in bad}
            usable = torch.tensor([path not in unusable for path in paths]).nonzero()[:, 0]
            paths, labels = select(labelled, usable)
            images = Rows(images, usable)
        self._paths[split] = paths
        if split == "train":
            self.groups = self.groups_of(paths)
        return images, labels

    def _report(self, bad: BadFiles, total: int) -> None:
        """Name the files that cannot be decoded, and stop there unless they are to be skipped."""
        names = "; ".join(f"{printable(str(path))} ({reason})" for path, reason in bad[:20])
        more = f" and {len(bad) - 20} more" if len(bad) > 20 else ""
        problem = f"{len(bad)} of {total} files are not usable images: {names}{more}."
        if self.bad_files == "stop":
            raise UserError(
                problem, "Remove or replace them, or leave them out with data.bad_files=skip."
            )
        log.warning(problem)
