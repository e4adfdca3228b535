"""What `load` of a data set gives, brought to one form: uint8 images and int64 labels.

A map-style `Dataset` of (image, label) is decoded once into memory if it fits, else item by item
in every epoch.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from ..errors import UserError
from .cache import free_memory
from .check import as_array, check_images, check_labels
from .compose import loader_part
from .decode import to_array
from .loader import ImageSource, pass_on, raised, worker_count
from .transforms import convert_channels, resize

if TYPE_CHECKING:
    from .base import ImageDataModule

log = logging.getLogger(__name__)
CHUNK = 64  # items that are read at a time
FEW = 500  # items below which reading them takes no longer than starting processes


def read_split(
    data: "ImageDataModule", split: str, size: int
) -> tuple[ImageSource, torch.Tensor] | None:
    """Read one split by the `load` of a data module, check it, resize what is in memory.

    Returns:
        uint8 (N, C, size, size) or a source of such batches, and int64 labels (N,); None if there
        is no such split.

    Raises:
        UserError: images or labels that cannot be used.
    """
    loaded = data.load_at(split, size)
    if loaded is None and split != "train":
        return None
    if loaded is None:
        raise UserError(
            f'{type(data).__name__}.load("train") returns nothing.',
            f"Are the files in data.root={data.root}? If so, let load return images and labels.",
        )
    if not _is_pair(loaded):
        loaded = read_dataset(data, split, loaded, size)
    images, labels = loaded[0], _class_numbers(data, split, loaded[1])
    is_source = hasattr(images, "index_select") and not isinstance(images, torch.Tensor)
    _check_settings(data, split, is_source)
    if is_source:
        return images, labels
    images = check_images(images, f"{split} images", data.channels)
    if len(images) != len(labels):
        raise UserError(
            f"The {split} split has {len(images)} images but {len(labels)} labels.",
            "Check the files of the data set, or its `load`.",
        )
    if data.resize == "pad":  # else grey images become RGB later, in each batch
        images = convert_channels(images, data.channels)
    return resize(images, size, data.resize, data.mean), labels


def _is_pair(loaded: Any) -> bool:
    """Whether these are (images, labels), and not a data set of such pairs."""
    if not isinstance(loaded, tuple | list) or len(loaded) != 2:
        return False
    return not isinstance(loaded[0], tuple)


def _class_numbers(data: "ImageDataModule", split: str, given: Any) -> torch.Tensor:
    """int64 (N,) labels, which may be renumbered by `remap_labels`."""
    labels = check_labels(given, f"{split} labels")
    if len(labels) == 0:
        raise UserError(f"The {split} split of {data.root} has no images.", "Check data.root.")
    low, high, count = labels.min(), labels.max(), len(data.classes)
    if low < 0 or high >= count:
        raise UserError(
            f"The {split} labels run from {low} to {high}, but there are {count} classes.",
            f"Labels count from 0: with these classes they run from 0 to {count - 1}.",
        )
    return labels if data.new_labels is None else data.new_labels[labels]


def _check_settings(data: "ImageDataModule", split: str, is_source: bool) -> None:
    if split == "val" and data.num_folds is not None:
        raise UserError(
            f"data.num_folds={data.num_folds}, but this data set has its own validation split.",
            "Leave data.num_folds out, or remove the validation split.",
        )
    if data.device_resident and (is_source or loader_part(data.augment) is not None):
        raise UserError(
            "data.device_resident=true needs images that fit into memory, and an augmentation of "
            "whole batches.",
            "Set data.device_resident=false.",
        )


def read_dataset(
    data: "ImageDataModule", split: str, dataset: Any, size: int
) -> tuple[ImageSource, torch.Tensor]:
    """Images and labels of a map-style `Dataset`, read once if they fit into `data.cache_gb`.

    Returns:
        uint8 (N, channels, size, size) or a source of such batches, and int64 labels (N,).
    """
    source = DatasetImages(dataset, split, size, data.channels, data.resize, data.mean)
    room = free_memory() // 2 if data.cache_gb is None else data.cache_gb * 1e9
    if len(source) * data.channels * size**2 <= room:
        return _read_all(source, worker_count(data.num_workers, quick=len(source) < FEW))
    labels = stored_labels(dataset)
    if labels is None:
        log.info("Reading the %s split once for its labels ...", split)
        labels = torch.tensor([source.read(i)[1] for i in range(len(source))])
    return source, labels


class DatasetImages(Dataset):
    """A source of uint8 batches that reads a map-style `Dataset` of (image, label) item by item."""

    def __init__(
        self,
        dataset: Any,
        split: str,
        size: int,
        channels: int = 3,
        mode: str = "stretch",
        fill: Sequence[float] = (0.5,),
    ):
        indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if not indexed or isinstance(dataset, Mapping) or len(dataset) == 0:
            raise UserError(
                f"The {split} data set is a {type(dataset).__name__}, which has no items or "
                "cannot be indexed by position.",
                "Give a map-style torch.utils.data.Dataset, or its class as data.train._target_.",
            )
        self.dataset, self.split = dataset, split
        self.size, self.channels, self.mode, self.fill = size, channels, mode, fill

    def __len__(self) -> int:
        return len(self.dataset)

    def item(self, i: int) -> tuple[Any, Any]:
        """(image, label) as the data set gives them; the image is one of Pillow's or a tensor."""
        item = self.dataset[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(
                f"Item {i} of the {self.split} data set is a {type(item).__name__}, "
                "not a pair of image and label.",
                "Give (PIL image | array | tensor, number of its class) for each index.",
            )
        image, label = item
        if isinstance(image, Image.Image):
            return image, label
        where = f"image and label of item {i} of the {self.split} data set"
        return check_images(as_array(image, where)[None], where, self.channels), label

    def read(self, i: int) -> tuple[torch.Tensor, int]:
        """uint8 (channels, size, size) and the label of one item."""
        image, label = self.item(i)
        where = f"label of item {i} of the {self.split} data set"
        number = int(check_labels(np.asarray(label)[None], where))
        if isinstance(image, Image.Image):
            array = to_array(image, self.size, self.channels, self.mode, self.fill)
            return torch.from_numpy(array), number
        image = convert_channels(image, self.channels)
        return resize(image, self.size, self.mode, self.fill)[0], number

    def __getitem__(self, chunk: list[int]) -> Any:
        return pass_on(self._read_chunk, chunk)

    def _read_chunk(self, chunk: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = zip(*map(self.read, chunk), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """(B,) indices -> uint8 (B, channels, size, size)."""
        return self._read_chunk(index.tolist())[0]


def _read_all(source: DatasetImages, num_workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    loader: DataLoader = DataLoader(
        source,
        sampler=[chunk.tolist() for chunk in torch.arange(len(source)).split(CHUNK)],
        batch_size=None,
        num_workers=num_workers,
        generator=torch.Generator(),  # so that nothing is drawn from the global one
    )
    images, labels = zip(*raised(loader), strict=True)
    return torch.cat(images), torch.cat(labels)


def stored_labels(dataset: Any) -> torch.Tensor | None:
    """Labels that a data set keeps beside its images, or None where they have to be read."""
    if isinstance(dataset, Subset):
        labels = stored_labels(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels", "_labels"):  # as torchvision's data sets call them
        try:
            labels = check_labels(getattr(dataset, name, None), "labels")
        except (UserError, ValueError):  # they are something else, such as boxes of objects
            continue
        places = range(0, len(dataset), max(len(dataset) // 4, 1))
        if len(labels) == len(dataset) and all(int(dataset[i][1]) == labels[i] for i in places):
            return labels
    return None
