"""A table of image files and their labels (`data=image_csv data.csv=labels.csv`)."""

import hashlib
import io
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from ..errors import UserError
from ..runs.reading import MAX_TABLE, read_text
from .folders import SPLIT_NAMES, SPLITS, LabelledFiles, file_size
from .groups import Groups
from .image_folder import ImageFolderDataModule

# Usual names of columns, in any case; the first that the table has is taken.
IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "filepath", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name")
SPLIT_COLUMNS = ("split", "subset", "partition")


class Row(NamedTuple):
    """A labelled file."""

    label: str
    split: str  # empty without a column of splits
    group: str  # empty without `group_by`
    number: int  # in the file, whose first row is the header


class ImageCSVDataModule(ImageFolderDataModule):
    """Images of any size and colour in a folder, with their labels in a table.

    The table is a CSV file in UTF-8 with a header, separated by commas, semicolons or tabs. A
    column `split` holds train, val and test, or their other names in folders.py.

    Args:
        root: the folder that the names of files are relative to.
        csv: the table; a relative path is looked up in the working directory, then in `root`.
        image_column, label_column: None finds them by their usual names.
        group_by: a column, such as `patient`; no split divides the images with one value.
        common: see `ImageFolderDataModule`.
    """

    def __init__(
        self,
        root: str | os.PathLike = "data",
        csv: str | os.PathLike = "labels.csv",
        image_column: str | None = None,
        label_column: str | None = None,
        group_by: str | None = None,
        **common: Any,
    ):
        super().__init__(root=root, group_by=group_by, **common)
        self.csv = Path(csv)
        self.image_column, self.label_column = image_column, label_column

    @cached_property
    def base(self) -> Path:
        """The folder that the names of files are relative to."""
        if not self.root.is_dir():
            raise UserError(
                f"There is no folder {self.root}.", "Give the folder of your images as data.root."
            )
        return Path(os.path.abspath(self.root))

    @cached_property
    def classes(self) -> list[str]:  # type: ignore[override]
        """Sorted labels, by number where all are whole numbers."""
        names = {row.label for row in self.rows.values()}
        if len(names) < 2:
            raise UserError(
                f"{self.csv} has one label only, {', '.join(names)}.",
                "Add images of other classes.",
            )
        is_numeric = all(name.isdecimal() for name in names)
        return sorted(names, key=lambda name: (int(name) if is_numeric else 0, name))

    @cached_property
    def rows(self) -> dict[Path, Row]:
        """The rows of the table by file.

        Raises:
            UserError: a table or a row that cannot be used.
        """
        table = _read(self.csv if self.csv.exists() else self.root / self.csv)
        columns = self._columns(table)
        rows: dict[Path, Row] = {}
        cells = table[list(columns.values())].itertuples(index=True, name=None)
        for number, *values in cells:
            where = f"Row {number} of {self.csv}"
            if "" in values:
                raise UserError(
                    f"{where} has an empty cell: {', '.join(columns.values())} are {values}.",
                    "Fill it in, or remove the row.",
                )
            cell = {"split": "", "group": "", **dict(zip(columns, values, strict=True))}
            name = cell["image"]
            path = self._path(where, name)
            row = Row(cell["label"], _split(where, cell["split"]), cell["group"], number)
            other = rows.setdefault(path, row)
            if other[:3] != row[:3]:
                raise UserError(
                    f"{where} says {_says(row)} of {name}, but row {other.number} {_says(other)}.",
                    "Remove one of the two rows.",
                )
        return rows

    def _columns(self, table: pd.DataFrame) -> dict[str, str]:
        """What a row says -> the column that says it."""
        columns = {
            "image": _column(self.csv, table, IMAGE_COLUMNS, "image_column", self.image_column),
            "label": _column(self.csv, table, LABEL_COLUMNS, "label_column", self.label_column),
        }
        split = next((name for name in table if name.lower() in SPLIT_COLUMNS), None)
        if split is not None:
            columns["split"] = split
        if self.group_by is not None:
            columns["group"] = _column(self.csv, table, (), "group_by", self.group_by)
        return columns

    def _path(self, where: str, name: str) -> Path:
        """The file of a row, inside `root`; Windows writes its path with backslashes."""
        path = Path(os.path.normpath(self.base / name.replace("\\", "/")))
        if not path.is_relative_to(self.base):
            raise UserError(
                f"{where}: {name} is outside of data.root={self.root}.",
                "Give the folder that holds all images as data.root.",
            )
        if self.bad_files == "stop" and not path.is_file():
            raise UserError(
                f"{where}: there is no file {path}.",
                "Correct data.root or the row, or leave out such rows with data.bad_files=skip.",
            )
        return path

    @cached_property
    def _split_folders(self) -> dict[str, Path]:
        """Split -> its name in messages, since it has no folder."""
        found = {row.split for row in self.rows.values()}
        return {split: self.csv / split for split in SPLITS if split in found}

    def _files_below(self, folder: Path) -> LabelledFiles:
        chosen = [
            path
            for path, row in self.rows.items()
            if folder == self.base or row.split == folder.name
        ]
        numbers = {name: i for i, name in enumerate(self.classes)}
        return chosen, torch.tensor([numbers[self.rows[path].label] for path in chosen])

    def groups_of(self, paths: list[Path]) -> Groups | None:
        return None if self.group_by is None else [self.rows[path].group for path in paths]

    def fingerprint(self) -> str:
        """Identifies the training images by their names, sizes and labels."""
        digest = hashlib.blake2b(digest_size=8)
        for path in self._files_below(self._train_folder)[0]:
            line = f"{self._name(path)}\0{file_size(path)}\0{self.rows[path].label}\n"
            digest.update(line.encode())
        return digest.hexdigest()


def _read(path: Path) -> pd.DataFrame:
    """The cells as text, by numbers of rows as a spreadsheet shows them."""
    try:
        text = read_text(path, MAX_TABLE).removeprefix("\ufeff")  # as Excel begins UTF-8
        separator = max(",;\t", key=text.partition("\n")[0].count)
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, index_col=False,
            keep_default_na=False, skip_blank_lines=False,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a table: {error}.",
            "Give a CSV file in UTF-8 with a header as data.csv.",
        ) from None
    table = table.fillna("").map(str.strip).rename(columns=lambda name: str(name).strip())
    table.index += 2
    return table[(table != "").any(axis=1)]


def _column(
    path: Path, table: pd.DataFrame, usual: Sequence[str], key: str, given: str | None
) -> str:
    """The name of a column that is given, or that has one of the usual names."""
    by_name = {name.lower(): name for name in reversed(table.columns)}
    found = given if given in table else next((by_name[n] for n in usual if n in by_name), None)
    if found is None or (given is not None and given != found):
        wanted = f"named {given}" if given else f"one of {', '.join(usual)}"
        raise UserError(
            f"Row 1 of {path} names the columns {', '.join(table.columns)}: none is {wanted}.",
            f"Give the name of a column as data.{key}, or add the header if there is none.",
        )
    return found


def _split(where: str, name: str) -> str:
    for split, names in SPLIT_NAMES.items():
        if name.lower() in names:
            return split
    if name:
        raise UserError(f"{where} has the split {name}.", "Name it train, val or test.")
    return ""


def _says(row: Row) -> str:
    return " ".join(filter(None, [row.label, row.split and f"in {row.split}", row.group]))
