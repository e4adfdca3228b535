"""Anybody's pictures in folders: one folder a class, ready-made train/val/test folders, or folders named `<label>_image`."""

import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

import torch

from src.datamodules.image_datamodule import ImageDataModule
from src.datamodules.picture_files import PictureFiles, cache_of, cached, default_cache_folder, room_for_cache, unusable
from src.datamodules.splits import check_share, hold_out
from src.decode import is_image_name
from src.errors import UserError

log = logging.getLogger(__name__)
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class ImageFolderDataModule(ImageDataModule):
    """A folder of pictures, any size and colour, one sub-folder a class; the classes are the names of the sub-folders, sorted.

    Three layouts are understood: `root/<class>/...`, split by seed; `root/train/<class>/...` with `val` (or `valid`) and `test` beside
    it where they exist; and either of them with `<class>_image` folders. No file is moved. Pictures are resized to `image_size`.

    Args:
        resize: `stretch` to the square, or `crop` the middle square.
        test_size: share (below 1) or number of pictures held out as a test split where there is no `test` folder; 0 for none.
        bad_files: `stop` at files that cannot be decoded, or `skip` them; they are named either way.
        cache_dir: where decoded pictures are kept; None is a folder of this project under the user's cache.
        cache_gb: most that a split's cache may take, in 10^9 bytes; None is half of the free memory and disk, 0 decodes every epoch.
        common: what every data set takes, see `ImageDataModule`.
    """

    channels = 3
    native_size = 224
    mean = (0.485, 0.456, 0.406)  # ImageNet's, what pretrained networks expect
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str | os.PathLike = "data",
        resize: str = "stretch",
        test_size: float = 0,
        bad_files: str = "stop",
        cache_dir: str | os.PathLike | None = None,
        cache_gb: float | None = None,
        **common,
    ):
        super().__init__(root=root, **common)
        for name, value, known in (
            ("resize", resize, ("stretch", "crop")),
            ("bad_files", bad_files, ("stop", "skip")),
        ):
            if value not in known:
                raise UserError(f"data.{name}={value!r} is not known.", f"Choose {' or '.join(known)}.")
        self.resize, self.test_size, self.bad_files = resize, test_size, bad_files
        check_share("data.test_size", test_size)
        if cache_gb is not None and not cache_gb >= 0:
            raise UserError(f"data.cache_gb={cache_gb} is less than 0.", "Give a number of 10^9 bytes, 0 for no cache, or null.")
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_folder()
        self.cache_gb = cache_gb
        self.whole = False  # a folder without ready-made splits: all of it is the test split, for a network that was trained on others
        self._classes: list[str] | None = None
        self._paths: dict[str, list[Path]] = {}  # of the pictures in `train`, `val` and `test`, as they were loaded

    @property
    def classes(self) -> list[str]:  # type: ignore[override]  # what other data sets know is read here
        """Class names, from the folders: sorted, without `_image`."""
        if self._classes is None:
            self._classes = [name for name, _ in class_folders(self._train_folder)]
        return self._classes

    @property
    def base(self) -> Path:
        """The folder in which the class folders, or the train, val and test folders, lie."""
        return self.root

    def _split_folder(self, split: str) -> Path | None:
        """Where a split's class folders lie: the base itself for the only folder of a set without ready-made splits."""
        if not self.base.is_dir():
            raise UserError(f"There is no folder {self.base}.", "Give the folder of your pictures with data.root=...")
        for name in SPLITS[split]:
            if (self.base / name).is_dir():
                return self.base / name
        plain = not any((self.base / name).is_dir() for names in SPLITS.values() for name in names)
        return self.base if split == "train" or (split == "test" and self.whole and plain) else None

    @property
    def _train_folder(self) -> Path:
        return self._split_folder("train") or self.base

    @property
    def has_test(self) -> bool:
        return self._split_folder("test") is not None or self.test_size > 0

    def load(self, split: str):
        folder = self._split_folder(split)
        if folder is None:
            return self._held_out()[1] if split == "test" and self.test_size else None
        if split == "train" and self._split_folder("test") is None and self.test_size:
            return self._held_out()[0]
        return self._pictures(split, *self.files(folder))

    def names(self, split: str, positions: torch.Tensor) -> list[str]:
        paths = self._paths[split if split in self._paths else "train"]  # validation may be a part of train
        files = [paths[i].relative_to(self.base).as_posix() for i in self._indices[split][positions].tolist()]
        return [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in files]

    def files(self, folder: Path) -> tuple[list[Path], torch.Tensor]:
        """Picture files below the class folders of `folder`, sorted, with int64 labels (N,).

        Raises:
            UserError: a class without pictures, or a class that training does not have.
        """
        paths: list[Path] = []
        labels: list[int] = []
        for name, class_folder in class_folders(folder):
            if name not in self.classes:
                raise UserError(
                    f"{class_folder} is a class that {self._train_folder} does not have.",
                    "Give every split the same class folders.",
                )
            found = sorted(
                path
                for path in class_folder.rglob("*")
                if is_image_name(path) and not any(p.startswith(".") for p in path.relative_to(class_folder).parts)
            )
            if not found:
                raise UserError(f"The class folder {class_folder} holds no pictures.", "Put pictures there or remove the folder.")
            paths += found
            labels += [self.classes.index(name)] * len(found)
        return paths, torch.tensor(labels)

    def fingerprint(self) -> str:
        """Names the training pictures: by their names inside the folder and their sizes, without reading them."""
        folder = self._train_folder
        digest = hashlib.blake2b(digest_size=8)
        for path in self.files(folder)[0]:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _held_out(self):
        """(train, test) of a folder without a `test` folder: stratified, by `split_seed`."""
        paths, labels = self.files(self._train_folder)
        parts = zip(("train", "test"), self._hold_out(labels), strict=True)
        return [self._pictures(split, [paths[i] for i in part], labels[part]) for split, part in parts]

    def _hold_out(self, labels: torch.Tensor) -> list[list[int]]:
        """Positions of (train, test) in a folder without a `test` folder."""
        return [part.tolist() for part in hold_out(labels, "data.test_size", self.test_size, self.split_seed)]

    def folders(self) -> list[Path]:
        """The folders that hold the class folders of the splits."""
        return list(dict.fromkeys(folder for split in SPLITS if (folder := self._split_folder(split)) is not None))

    def split_files(self, split: str, without: Collection[Path] = ()) -> tuple[list[Path], torch.Tensor]:
        """The files of `train`, `val` or `test` with their labels, as training would split them, less some that cannot be used.

        Returns:
            ([], empty) where there is no such split.
        """
        folder = self._split_folder(split)
        if folder is not None and split != "train":
            paths, labels = self.files(folder)
            return _without(paths, labels, without)
        paths, labels = self.files(self._train_folder)
        if self._split_folder("test") is None and self.test_size:
            held = self._hold_out(labels)[split == "test"]
            paths, labels = [paths[i] for i in held], labels[held]
        elif split == "test":
            return [], labels[:0]
        paths, labels = _without(paths, labels, without)
        if split == "test" or self._split_folder("val") is not None:
            return (paths, labels) if split != "val" else ([], labels[:0])
        part = self._split(labels, None)[split == "val"].sort().values
        return [paths[i] for i in part.tolist()], labels[part]

    def _pictures(self, split: str, paths: list[Path], labels: torch.Tensor):
        """Decoded and mapped where they fit, else to be decoded batch by batch."""
        self._paths[split] = paths
        files = PictureFiles(paths, self.image_size, self.channels, self.resize)
        room = room_for_cache(cache_of(files, self.cache_dir)) if self.cache_gb is None else int(self.cache_gb * 1e9)
        if files.nbytes > room:
            if self.cache_gb != 0:
                log.info(
                    "%s pictures take %.1f GB decoded, the cache may take %.1f GB: they are decoded anew every epoch.",
                    f"{len(paths):,}", files.nbytes / 1e9, room / 1e9,
                )  # fmt: skip
            bad = unusable(files, self.cache_dir) if self.bad_files == "skip" else []
            self._tell(bad, len(paths))
            paths, labels = _without(paths, labels, {path for path, _ in bad})
            self._paths[split] = paths
            return PictureFiles(paths, self.image_size, self.channels, self.resize), labels
        images, bad = cached(files, self.cache_dir)
        if bad:
            self._tell(bad, len(paths))
            unusable_paths = {path for path, _ in bad}
            keep = torch.tensor([path not in unusable_paths for path in paths])
            self._paths[split] = [path for path in paths if path not in unusable_paths]
            return _Rows(images, keep.nonzero()[:, 0]), labels[keep]
        return images, labels

    def _tell(self, bad: list[tuple[Path, str]], total: int) -> None:
        """Name the files that cannot be used, and stop there unless they are to be skipped."""
        if not bad:
            return
        names = "; ".join(f"{path} ({reason})" for path, reason in bad[:20])
        more = f" and {len(bad) - 20} more" if len(bad) > 20 else ""
        problem = f"{len(bad)} of {total} files are no usable pictures: {names}{more}."
        if self.bad_files == "stop":
            raise UserError(problem, "Remove or replace them, or leave them out with data.bad_files=skip.")
        log.warning(problem)


def _without(paths: list[Path], labels: torch.Tensor, gone: Collection[Path]) -> tuple[list[Path], torch.Tensor]:
    keep = [i for i, path in enumerate(paths) if path not in gone]
    return [paths[i] for i in keep], labels[keep]


class _Rows:
    """Some rows of a tensor too large to copy."""

    def __init__(self, images: torch.Tensor, rows: torch.Tensor):
        self.images, self.rows = images, rows

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        return self.images.index_select(0, self.rows[index])


def class_folders(folder: Path) -> list[tuple[str, Path]]:
    """(class name, folder) pairs, sorted by name; hidden folders and `__MACOSX` are passed over.

    Where there are `<label>_image` folders, only they count and their names lose the ending (`ants_image` is the class `ants`).
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX")
    named = [path for path in folders if path.name.endswith("_image")]
    pairs = [(path.name.removesuffix("_image"), path) for path in named] or [(path.name, path) for path in folders]
    if len(pairs) < 2:
        raise UserError(
            f"{folder} has {len(pairs)} class folders; at least 2 are needed.", "Give each class a folder of its own with its pictures."
        )
    return pairs
