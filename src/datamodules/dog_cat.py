"""Dogs and cats: 1,400 photos of transfer learning tutorials (ardamavi/Dog-Cat-Classifier)."""

import os
from pathlib import Path
from typing import Any

from ..errors import UserError
from .archives import extract
from .image_folder import ImageFolderDataModule

ARCHIVE = "dog_cat.tar"
SOURCE = "https://github.com/ardamavi/Dog-Cat-Classifier (folder Data/Train_Data)"


class DogCatDataModule(ImageFolderDataModule):
    """Two classes, photos of all sizes, resized to 224x224; 250 of them are for validation.

    `root` holds the folders `cat` and `dog`, or a folder `dog_cat` or `Train_Data` with them, or
    the archive `dog_cat.tar` of such a folder. Nothing is downloaded, since no checksum is
    published.
    """

    classes = ["cat", "dog"]

    def __init__(self, root: str | os.PathLike = "data", val_size: float = 250, **common: Any):
        super().__init__(root=root, val_size=val_size, **common)

    @property
    def base(self) -> Path:
        for folder in (self.root, self.root / "dog_cat", self.root / "Train_Data"):
            if any((folder / name).is_dir() for name in ("cat", "cat_image", "train")):
                return folder
        if (self.root / ARCHIVE).is_file():
            extract(self.root / ARCHIVE, self.root / "dog_cat")
            return self.root / "dog_cat"
        raise UserError(
            f"{self.root} holds neither the folders cat and dog nor {ARCHIVE}.",
            f"Get the images from {SOURCE} and put the folders cat and dog into {self.root}, "
            "or give their folder as data.root.",
        )
