"""Which folders and files of an image folder count, by their names."""

from pathlib import Path

from ..errors import UserError
from .decode import is_image_name

SPLIT_FOLDERS = {"train": ["train"], "val": ["val", "valid", "validation"], "test": ["test"]}
IMAGE_SUFFIX = "_image"


def has_split_folders(folder: Path) -> bool:
    """Whether a folder holds train, val or test folders."""
    return any((folder / name).is_dir() for names in SPLIT_FOLDERS.values() for name in names)


def is_hidden(name: str) -> bool:
    """Whether a folder of this name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; hidden files and folders are passed over."""
    found = []
    for path in folder.rglob("*"):
        parents = path.relative_to(folder).parts[:-1]
        if is_image_name(path) and not any(is_hidden(name) for name in parents):
            found.append(path)
    return sorted(found)


def class_folders(folder: Path) -> dict[str, Path]:
    """Class name -> folder, sorted by name; hidden folders are passed over.

    If there are `<label>_image` folders, only they count: `ants_image` is the class `ants`.

    Raises:
        UserError: fewer than two classes.
    """
    folders = sorted(
        path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)
    )
    named = [path for path in folders if path.name.endswith(IMAGE_SUFFIX)]
    pairs = {path.name.removesuffix(IMAGE_SUFFIX): path for path in named or folders}
    if len(pairs) < 2:
        raise UserError(
            f"{folder} has {len(pairs)} class folders; at least 2 are needed.",
            "Give each class a folder of its own with its images.",
        )
    return pairs
