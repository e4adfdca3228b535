"""Data sets: each a LightningDataModule that hands out uint8 batches. They know neither networks nor training.

A new data set needs no line here: its YAML names it by its full path, `src.datamodules.my_data.MyDataModule`.
"""

from src.datamodules.augment import CropFlip, PerImage
from src.datamodules.cifar10 import CIFAR10DataModule
from src.datamodules.digits import DigitsDataModule
from src.datamodules.dog_cat import DogCatDataModule
from src.datamodules.fashion_mnist import FashionMNISTDataModule
from src.datamodules.image_datamodule import ImageDataModule
from src.datamodules.image_folder import ImageFolderDataModule

__all__ = [
    "CIFAR10DataModule",
    "CropFlip",
    "DigitsDataModule",
    "DogCatDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "PerImage",
]
