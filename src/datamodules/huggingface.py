"""Data sets of the Hugging Face hub, or local ones in its formats: `data=huggingface`."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..errors import UserError
from .dataset import IMAGENET_MEAN, IMAGENET_STD, MapStyleDataModule
from .folders import SPLIT_NAMES

LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "fine_label")


class HuggingFaceDataModule(MapStyleDataModule):
    """A data set of `datasets.load_dataset` with a column of images and one of labels.

    Names of classes are those of its `ClassLabel`, else the sorted labels of `train`. Code that
    comes with a data set is never run: version 4 of `datasets`, which is needed, cannot do so.

    Args:
        path: a name on the hub such as `uoft-cs/cifar10`, a parquet file, or a folder with parquet
            files or with images.
        name: the configuration, where the data set has several.
        root: what is downloaded and converted is kept there.
        image_column, label_column: None finds them by their types and usual names.
        group_by: a column; no split divides the images with one value.
        common: see `ImageDataModule`.
    """

    channels = 3
    native_size = 224
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        root: str | os.PathLike = "data",
        image_column: str | None = None,
        label_column: str | None = None,
        group_by: str | None = None,
        **common: Any,
    ):
        super().__init__(root=root, **common)
        self.path, self.name, self.group_by = path, name, group_by
        self.image_column, self.label_column = image_column, label_column

    def prepare_data(self) -> None:
        """Download what is missing. Lightning calls it in one process of each machine."""
        _load_dataset(self.path, self.name, self.root)

    @cached_property
    def splits(self) -> dict[str, Any]:
        """`train`, `val` and `test`, where they exist -> `datasets.Dataset`."""
        given = _load_dataset(self.path, self.name, self.root)
        found = {
            split: given[name]
            for split, names in SPLIT_NAMES.items()
            for name in names
            if name in given
        }
        return found or ({"train": next(iter(given.values()))} if len(given) == 1 else {})

    @property
    def has_test(self) -> bool:
        return "test" in self.splits

    def open(self, split: str) -> Any:
        dataset = self.splits.get(split)
        if dataset is None:
            return None
        image, label = self._image_column(dataset), self._label_column(dataset)
        labels = dataset[label][:]
        feature = dataset.features[label]
        if not hasattr(feature, "names"):  # no ClassLabel
            every = set(self.splits.get("train", dataset)[label])
            names = [str(value) for value in sorted(every)]
            unknown = {str(value) for value in labels} - set(names)
            if unknown:
                raise UserError(
                    f"The {split} split of {self.path} has the label {min(unknown)}, which train "
                    "does not have.",
                    "Give every split the same labels, or another data.label_column.",
                )
            labels = [names.index(str(value)) for value in labels]
        self._classes = self._classes or getattr(feature, "names", None) or names
        if split == "train" and self.group_by is not None:
            self._check_column(dataset, "group_by", self.group_by)
            self.groups = [str(value) for value in dataset[self.group_by]]
        return LabelledRows(dataset.select_columns(image), image, labels)

    def _image_column(self, dataset: Any) -> str:
        images = [name for name, kind in dataset.features.items() if _is(kind, "Image")]
        return self._chosen(dataset, "image_column", self.image_column, images)

    def _label_column(self, dataset: Any) -> str:
        labels = [name for name, kind in dataset.features.items() if _is(kind, "ClassLabel")]
        usual = [name for name in LABEL_COLUMNS if name in dataset.features]
        preferred = [name for name in usual if name in labels] or labels or usual
        return self._chosen(dataset, "label_column", self.label_column, preferred)

    def _chosen(self, dataset: Any, key: str, given: str | None, found: list[str]) -> str:
        if given is None and not found:
            raise UserError(
                f"{self.path} has the columns {', '.join(dataset.features)}: no {key} was found.",
                f"Give its name as data.{key}.",
            )
        if given is not None:
            self._check_column(dataset, key, given)
        return given or found[0]

    def _check_column(self, dataset: Any, key: str, name: str) -> None:
        if name not in dataset.features:
            raise UserError(
                f"data.{key}={name} is no column of {self.path}.",
                f"Its columns are {', '.join(dataset.features)}.",
            )


class LabelledRows(Dataset):
    """(PIL image, number of the class) of each row."""

    def __init__(self, dataset: Any, image_column: str, labels: list[int]):
        self.dataset, self.image_column, self.labels = dataset, image_column, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.dataset[i][self.image_column], self.labels[i]


def _is(kind: Any, name: str) -> bool:
    return type(kind).__name__ == name


def _load_dataset(path: str | None, name: str | None, root: Path) -> Any:
    """A `datasets.DatasetDict`."""
    if path is None:
        raise UserError(
            "data.path is needed.", "Give a name on the hub, a parquet file or a folder."
        )
    try:
        import datasets
    except ImportError:
        raise UserError(
            "data=huggingface needs the package datasets.",
            'Run pip install -e ".[huggingface]".',
        ) from None
    options: dict[str, Any] = {"name": name, "cache_dir": str(root / "huggingface")}
    try:
        if path.endswith(".parquet"):
            return datasets.load_dataset("parquet", data_files=path, **options)
        return datasets.load_dataset(path, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"data.path={path} cannot be loaded: {error}",
            "Check the name, the configuration in data.name and the connection; or give a parquet "
            "file or a folder.",
        ) from None
