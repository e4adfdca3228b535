"""Any map-style `torch.utils.data.Dataset` of (image, label) as a data module."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from .base import ImageDataModule
from .reading import DatasetImages, read_dataset
from .transforms import channel_values

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what pretrained networks expect
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY_MODES = ("1", "L", "I", "F", "I;16")  # of Pillow


class MapStyleDataModule(ImageDataModule):
    """Base of data modules whose splits are map-style data sets; a subclass writes `open`."""

    _classes: list[str] | None = None  # where they are known

    @property
    def classes(self) -> list[str]:  # type: ignore[override]  # other data sets have it as a fact
        """Names of the classes; numbers from 0 where the data set has no names."""
        if self._classes is None:
            self.setup("fit")
        assert self._classes is not None
        return self._classes

    def open(self, split: str) -> Any:
        """The data set of a split, or its (images, labels), or None without such a split."""
        raise NotImplementedError

    def load(self, split: str) -> Any:
        return self.load_at(split, self.image_size)

    def load_at(self, split: str, size: int) -> Any:
        opened = self.open(split)
        if opened is None:
            return None
        if not isinstance(opened, tuple):
            opened = read_dataset(self, split, opened, size)
        if self._classes is None:
            self._classes = [str(i) for i in range(int(max(opened[1])) + 1)]
        return opened


class DatasetDataModule(MapStyleDataModule):
    """A data set of (PIL image | array | tensor, label) for each split.

        DatasetDataModule(train=my_dataset, test=my_test)

    Images of any size are brought to `image_size`. They are read once if they fit into memory, so
    random transforms belong into `augment` and not into the data set (or set `cache_gb=0`).

    Args:
        val: None takes validation images from `train`.
        classes: names of the classes; None takes them from `train.classes`, else from the labels.
        common: see `ImageDataModule`.
    """

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        classes: Sequence[str] | None = None,
        **common: Any,
    ):
        self.datasets = {"train": train, "val": val, "test": test}
        self.channels, self.native_size = _image_format(train)
        self.mean = channel_values("mean", IMAGENET_MEAN, 3, self.channels)
        self.std = channel_values("std", IMAGENET_STD, 3, self.channels)
        super().__init__(**common)
        self._classes = class_names(train) if classes is None else [str(name) for name in classes]

    @property
    def has_test(self) -> bool:
        return self.datasets["test"] is not None

    def open(self, split: str) -> Any:
        return self.datasets[split]


def class_names(dataset: Any) -> list[str] | None:
    """The names in `dataset.classes`, the first of each where there are several; or None."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple):
        return None
    return [name[0] if isinstance(name, tuple) else str(name) for name in names]


def _image_format(dataset: Any) -> tuple[int, int]:
    """Channels of the first image, 1 or 3, and its side, or 224 where it is not square."""
    image, _ = DatasetImages(dataset, "train", size=1).item(0)
    if isinstance(image, Image.Image):
        channels = 1 if image.mode in GREY_MODES else 3
        width, height = image.size
    else:
        _, channels, height, width = image.shape
    return channels, height if height == width else 224
