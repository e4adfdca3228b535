"""Data sets, each a LightningDataModule that hands out uint8 batches.

A new data set needs no line here: its YAML file names it by its full path.
"""

from .base import ImageDataModule
from .color_jitter import ColorJitter
from .compose import Compose
from .dataset import DatasetDataModule
from .digits import DigitsDataModule
from .dog_cat import DogCatDataModule
from .huggingface import HuggingFaceDataModule
from .image_csv import ImageCSVDataModule
from .image_folder import ImageFolderDataModule
from .random_resized_crop import RandomResizedCrop
from .torchvision import CIFAR10DataModule, FashionMNISTDataModule, TorchvisionDataModule
from .transforms import CropFlip, PerImage

__all__ = [
    "CIFAR10DataModule",
    "ColorJitter",
    "Compose",
    "CropFlip",
    "DatasetDataModule",
    "DigitsDataModule",
    "DogCatDataModule",
    "FashionMNISTDataModule",
    "HuggingFaceDataModule",
    "ImageCSVDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "PerImage",
    "RandomResizedCrop",
    "TorchvisionDataModule",
]
