"""Which folders and files of an image folder count, by their names."""

import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from ..errors import UserError
from ..runs.text import printable
from .decode import is_image_name

log = logging.getLogger(__name__)
# Names of the folders of a split, in any case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = tuple(SPLIT_NAMES)
IMAGE_SUFFIX = "_image"
LabelledFiles = tuple[list[Path], torch.Tensor]  # paths and int64 labels (N,)


def select(labelled: LabelledFiles, positions: torch.Tensor) -> LabelledFiles:
    """The files at int64 (M,) positions."""
    paths, labels = labelled
    return [paths[i] for i in positions.tolist()], labels[positions]


def is_hidden(name: str) -> bool:
    """Whether a folder of this name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones are passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def split_folders(folder: Path) -> dict[str, Path]:
    """Split (`train`, `val`, `test`) -> its folder in a folder, by `SPLIT_NAMES`.

    Raises:
        UserError: two folders of one split, or folders of classes beside those of splits.
    """
    found = _by_split(folder)
    others = found.pop("", [])
    for split, paths in found.items():
        if len(paths) > 1:
            raise UserError(
                f"{_names(paths)} in {folder} both name the {split} split.",
                "Keep one of them, or give them other names.",
            )
    splits = {split: paths[0] for split, paths in found.items()}
    if splits:
        _check_others(folder, splits, [path for path in others if _has_images(path)])
    return splits


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """The folders in a folder by the split that they name; others are under an empty name."""
    splits = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    found: dict[str, list[Path]] = {}
    for path in subfolders(folder):
        found.setdefault(splits.get(path.name.lower(), ""), []).append(path)
    return found


def _check_others(folder: Path, splits: dict[str, Path], others: list[Path]) -> None:
    """Refuse folders with images beside those of splits, where they may be classes.

    Several folders of splits leave no doubt; others, such as `unlabelled`, are then left out.
    """
    classes = {child.name for path in splits.values() for child in subfolders(path)}
    if others and (len(splits) == 1 or any(path.name in classes for path in others)):
        raise UserError(
            f"{folder} has {_names(list(splits.values()))}, by name a part of the data, beside "
            f"folders with images that look like classes: {_names(others)}.",
            "Rename it if it is a class; else move the other folders out of there.",
        )
    if others:
        log.warning("Folders that are no splits are left out: %s.", _names(others))


def _names(paths: list[Path]) -> str:
    shown = ", ".join(f"{printable(path.name)}/" for path in paths[:10])
    return shown + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")


def unwrap(folder: Path) -> Path:
    """The folder with the folders of splits or classes: `folder`, or the one that it wraps.

    An archive often holds one more folder, such as `photos` with `cat` and `dog` in it.
    """
    inner = folder
    while not _by_split(inner).keys() - {""} and not any(map(is_image_name, inner.iterdir())):
        filled = list(islice(filter(_has_images, subfolders(inner)), 2))  # more say no more
        if len(filled) != 1 or not _holds_folders(filled[0]):
            break
        inner = filled[0]
    if inner != folder:
        log.info("The images are in %s, the only folder of %s with images.", inner, folder)
    return inner


def _holds_folders(folder: Path) -> bool:
    """Whether a folder holds folders with images, and no images beside them."""
    if any(map(is_image_name, folder.iterdir())):
        return False
    return any(_has_images(path) for path in subfolders(folder))


def _has_images(folder: Path) -> bool:
    return next(_walk(folder), None) is not None


def _walk(folder: Path) -> Iterator[Path]:
    """What has the name of an image below a folder; hidden files and folders are passed over."""
    for parent, folders, files in os.walk(folder):
        yield from filter(is_image_name, (Path(parent, name) for name in (*folders, *files)))
        folders[:] = [name for name in folders if not is_hidden(name)]


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder by their names, sorted, whether or not they can be read."""
    return sorted(_walk(folder))


def file_size(path: Path) -> int:
    """Size in bytes; -1 for a link that leads nowhere."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def class_folders(folder: Path, least: int = 2) -> dict[str, Path]:
    """Class name -> folder, sorted by name; hidden folders are passed over.

    If there are `<label>_image` folders, only they count: `ants_image` is the class `ants`.

    Raises:
        UserError: fewer than `least` classes.
    """
    folders = subfolders(folder)
    named = [path for path in folders if path.name.endswith(IMAGE_SUFFIX)]
    pairs = {path.name.removesuffix(IMAGE_SUFFIX): path for path in named or folders}
    if len(pairs) < least:
        images = sum(map(is_image_name, folder.iterdir()))
        raise UserError(
            f"{folder} has {len(pairs)} class folders; at least {least} are needed."
            + (f" It has {images} images that are in none." if images else ""),
            "Give each class a folder of its own with its images.",
        )
    return pairs


def list_files(folder: Path, classes: list[str], least: int = 2) -> LabelledFiles:
    """The images in the class folders of a folder, labelled by their places in `classes`.

    Raises:
        UserError: fewer than `least` classes, another class, or one without images.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for name, class_folder in class_folders(folder, least).items():
        if name not in classes:
            raise UserError(
                f"{class_folder} is a class that the training folder does not have.",
                "Give every split the same class folders.",
            )
        found = image_files(class_folder)
        if not found:
            raise UserError(
                f"The class folder {class_folder} has no images.",
                "Put images there or remove the folder.",
            )
        paths += found
        labels += [classes.index(name)] * len(found)
    return paths, torch.tensor(labels)
