"""A look at every image before training (`check=data`): unreadable files, duplicates, leaks."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..runs.text import printable
from .base import ImageDataModule
from .decode import FORMATS, decode, is_image_name
from .folders import SPLITS, is_hidden
from .image_folder import ImageFolderDataModule
from .near_duplicates import difference_hash, near_pairs

SHOWN = 20  # examples of each kind of problem
CHUNK = 256  # images that are read at a time
MIN_SIDE = 16  # pixels
MAX_RATIO = 5  # of the longer to the shorter side


class Place(NamedTuple):
    """Where an image was found."""

    split: str
    class_name: str
    name: str


Places = dict[bytes, list[Place]]  # hash of an image -> where it occurs


@dataclass
class Scan:
    """The result of a scan. `problems` spoil a training or its metrics, `notes` do not."""

    counts: dict[str, Counter] = field(default_factory=dict)  # split -> class -> usable images
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, split: str, classes: Iterable[str], names: Iterable[str]) -> None:
        """Count the images of a split by `names`, the class of each."""
        self.counts[split] = Counter(dict.fromkeys(classes, 0) | Counter(names))

    def report(self) -> str:
        """A table of the counts, then the problems, then the notes."""
        lines = []
        if self.counts:
            table = pd.DataFrame(self.counts).fillna(0).astype(int)
            table.loc["all"] = table.sum()
            lines.append(table.rename_axis(columns="class").to_string())
        lines += [f"problem: {text}" for text in self.problems]
        lines += [f"note: {text}" for text in self.notes]
        if not self.problems and not self.notes:
            lines.append("no problems")
        return "\n".join(lines)


def scan(data: ImageDataModule) -> Scan:
    """Read every image of a data set once."""
    data.prepare_data()
    return _scan_files(data) if isinstance(data, ImageFolderDataModule) else _scan_images(data)


def _scan_images(data: ImageDataModule) -> Scan:
    """Counts and duplicates of a data set that does not consist of files."""
    data.setup()
    result = Scan()
    places: Places = defaultdict(list)
    for split in data.sizes():
        names = [data.classes[label] for label in data.labels(split).tolist()]
        result.count(split, data.classes, names)
        for positions in torch.arange(len(names)).split(CHUNK):
            for i, image in zip(positions.tolist(), data.images(split, positions), strict=True):
                digest = hashlib.blake2b(image.contiguous().numpy(), digest_size=16).digest()
                places[digest].append(Place(split, names[i], f"{split} {i}"))
    _add_duplicates(result, places.values())
    return result


def _scan_files(data: ImageFolderDataModule) -> Scan:
    """Counts, duplicates, and files that are unusable, misnamed or passed over."""
    result = Scan()
    splits = data.split_files()
    files = sorted({path for paths, _ in splits.values() for path in paths})
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = dict(zip(files, pool.map(_look_at, files), strict=True))
    unusable = {path: look.error for path, look in looks.items() if look.error}
    places: Places = defaultdict(list)
    # As in training with bad_files=skip, validation images are drawn from the usable ones.
    for split, (paths, labels) in data.split_files(unusable).items():
        names = [data.classes[label] for label in labels.tolist()]
        result.count(split, data.classes, names)
        for path, name in zip(paths, names, strict=True):
            places[looks[path].digest].append(Place(split, name, str(path)))
    bad = [f"{path} ({error})" for path, error in unusable.items()]
    _add(result.problems, "files that are not usable images", bad)
    _add_duplicates(result, places.values())
    misnamed = [f"{path} (it is {look.misnamed})" for path, look in looks.items() if look.misnamed]
    _add(result.notes, "files whose format is not that of their name", misnamed)
    extreme = [f"{path} ({look.sides})" for path, look in looks.items() if look.sides]
    _add(result.notes, "images of extreme shapes", extreme)
    _add_near_duplicates(result, places, looks)
    hidden, others = _passed_over(data)
    _add(result.notes, "hidden folders that are passed over", hidden)
    _add(result.notes, "files that are passed over by their names", others)
    return result


class Look(NamedTuple):
    """What a file turned out to be."""

    error: str = ""  # why it cannot be used
    misnamed: str = ""  # its format, if its name has the ending of another
    digest: bytes = b""
    hash: np.ndarray | None = None  # of what it shows
    sides: str = ""  # the shorter and the longer one, if they are extreme


def _look_at(path: Path) -> Look:
    try:
        pixels = decode(path, 32)
        with Image.open(path, formats=FORMATS) as image:
            found = "JPEG" if image.format == "MPO" else image.format  # MPO: JPEG of some cameras
            short, long = sorted(image.size)
        digest = hashlib.sha256(path.read_bytes()).digest()
    except (ValueError, OSError) as error:
        return Look(str(error))
    expected = Image.registered_extensions().get(path.suffix.lower())
    is_extreme = short < MIN_SIDE or long > MAX_RATIO * short
    return Look(
        misnamed="" if found == expected else str(found),
        digest=digest,
        hash=difference_hash(pixels),
        sides=f"{short} and {long} pixels" if is_extreme else "",
    )


def _passed_over(data: ImageFolderDataModule) -> tuple[list[str], list[str]]:
    """Hidden folders, and files without the name of an image, below the folders of the splits."""
    hidden, others = [], []
    for folder in filter(None, map(data.split_folder, SPLITS)):
        for path in sorted(folder.rglob("*")):
            *parents, name = path.relative_to(folder).parts
            if any(is_hidden(parent) for parent in parents):
                continue
            if path.is_dir():
                if is_hidden(name):
                    hidden.append(str(path))
            elif not is_image_name(path):
                others.append(str(path))
    return hidden, others


def _add_duplicates(result: Scan, groups: Iterable[list[Place]]) -> None:
    """Note the places that hold the same image: in several splits or classes it is a problem."""
    across_splits, across_classes, within = [], [], []
    for group in groups:
        text = printable(
            " = ".join(f"{place.name} [{place.split}, {place.class_name}]" for place in group)
        )
        splits = {place.split for place in group}
        classes = {place.class_name for place in group}
        if len(splits) > 1:
            across_splits.append(text)
        if len(classes) > 1:
            across_classes.append(text)
        if len(group) > 1 and len(splits) == len(classes) == 1:
            within.append(text)
    _add(result.problems, "images in more than one split", across_splits)
    _add(result.problems, "images in more than one class", across_classes)
    _add(result.notes, "images that occur more than once in a split", within)


def _add_near_duplicates(result: Scan, places: Places, looks: Mapping[Path, Look]) -> None:
    """Note images that look the same and are not the same file, the first place of each."""
    found = [(group[0], looks[Path(group[0].name)].hash) for group in places.values()]
    first = [place for place, value in found if value is not None]
    hashes = [value for _, value in found if value is not None]
    across: list[str] = []
    within: list[str] = []
    for one, other in near_pairs(hashes):
        pair = [first[one], first[other]]
        text = " ~ ".join(f"{place.name} [{place.split}, {place.class_name}]" for place in pair)
        (within if pair[0].split == pair[1].split else across).append(printable(text))
    _add(result.notes, "images in two splits that look the same", across)
    _add(result.notes, "images in one split that look the same", within)


def _add(messages: list[str], what: str, items: Sequence[str]) -> None:
    """Add a message with the number of items and examples, if there are any."""
    if items:
        more = f"; and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
        messages.append(f"{what} ({len(items):,}): {'; '.join(items[:SHOWN])}{more}")
