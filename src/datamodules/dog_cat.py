"""Dogs and cats: the folder of 1,400 pictures that ResNet-18 transfer tutorials use (github.com/ardamavi/Dog-Cat-Classifier)."""

import os
from pathlib import Path

from src.datamodules.download import extract
from src.datamodules.image_folder import ImageFolderDataModule
from src.errors import UserError

ARCHIVE = "dog_cat.tar"
SOURCE = "https://github.com/ardamavi/Dog-Cat-Classifier (folder Data/Train_Data)"


class DogCatDataModule(ImageFolderDataModule):
    """Two classes, photos of all sizes, shown at 224x224; 250 validate, the others train, and no file is moved.

    `root` holds the folders `cat` and `dog`, or a folder `dog_cat` or `Train_Data` with them, or the archive `dog_cat.tar` of such a
    folder. Any number of pictures will do. The set has no published checksum, so nothing is downloaded.
    """

    classes = ["cat", "dog"]

    def __init__(self, root: str | os.PathLike = "data", val_size: float = 250, **common):
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
            f"Get the pictures from {SOURCE} and put the folders cat and dog into {self.root}, or say where they are with data.root=...",
        )
