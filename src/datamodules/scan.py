"""A look at every picture before training (`check=data`): what cannot be read, what occurs twice, what would be passed over."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from src.datamodules.image_datamodule import ImageDataModule
from src.datamodules.image_folder import ImageFolderDataModule
from src.decode import FORMATS, decode, is_image_name

SHOWN = 20  # of a kind


@dataclass
class Scan:
    """What was found. `problems` spoil a training or its figures, `notes` do not."""

    counts: dict[str, Counter] = field(default_factory=dict)  # split -> class -> usable pictures
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self) -> str:
        """A table of the counts, then the problems, then the notes."""
        classes = list(dict.fromkeys(name for counts in self.counts.values() for name in counts))
        width = max(5, *map(len, classes)) if classes else 5
        lines = [f"{'class':<{width}}" + "".join(f"{split:>10}" for split in self.counts)]
        for name in classes:
            lines.append(f"{name:<{width}}" + "".join(f"{counts[name]:>10,}" for counts in self.counts.values()))
        lines.append(f"{'all':<{width}}" + "".join(f"{counts.total():>10,}" for counts in self.counts.values()))
        for title, found in (("problem", self.problems), ("note", self.notes)):
            lines += [f"{title}: {text}" for text in found]
        return "\n".join(lines if self.problems or self.notes else [*lines, "nothing wrong"])


def scan(data: ImageDataModule) -> Scan:
    """Read every picture of a data set once.

    Raises:
        UserError: the data are missing, or a class has no pictures at all.
    """
    data.prepare_data()
    return _scan_folder(data) if isinstance(data, ImageFolderDataModule) else _scan_pictures(data)


def _scan_pictures(data: ImageDataModule) -> Scan:
    """A data set that is no folder: counts and duplicates, by position."""
    data.setup()
    found = Scan()
    places = defaultdict(list)
    for split in data.sizes():
        labels = data.labels(split)
        found.counts[split] = Counter({name: int((labels == i).sum()) for i, name in enumerate(data.classes)})
        for start in range(0, len(labels), 256):
            positions = torch.arange(start, min(start + 256, len(labels)))
            for position, picture in zip(positions.tolist(), data.images(split, positions), strict=True):
                digest = hashlib.blake2b(picture.contiguous().numpy(), digest_size=16).digest()
                places[digest].append((split, data.classes[labels[position]], f"{split} {position}"))
    _tell_duplicates(found, places.values())
    return found


def _scan_folder(data: ImageFolderDataModule) -> Scan:
    found = Scan()
    bad: list[str] = []
    misnamed: list[str] = []
    places = defaultdict(list)
    splits = {split: data.split_files(split) for split in ("train", "val", "test")}
    everything = list(dict.fromkeys(path for paths, _ in splits.values() for path in paths))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looked = dict(zip(everything, pool.map(_look, everything), strict=True))
    unusable = {path for path, (reason, _, _) in looked.items() if reason}
    # The split of a single folder is drawn among what can be used, as in training with data.bad_files=skip.
    splits = {split: data.split_files(split, unusable) for split in splits}
    for split, (paths, labels) in splits.items():
        if not paths:
            continue
        found.counts[split] = Counter(dict.fromkeys(data.classes, 0))
        for path, label in zip(paths, labels.tolist(), strict=True):
            found.counts[split][data.classes[label]] += 1
            places[looked[path][2]].append((split, data.classes[label], str(path)))
    for path, (reason, format, _) in looked.items():
        if reason:
            bad.append(f"{path} ({reason})")
        elif Image.registered_extensions().get(path.suffix.lower()) != format:
            misnamed.append(f"{path} (it is {format})")
    if bad:
        found.problems.append(f"{_count(bad, 'file is no usable picture', 'files are no usable pictures')}: {_listed(bad)}")
    _tell_duplicates(found, places.values())
    if misnamed:
        found.notes.append(f"{_count(misnamed, 'file has', 'files have')} another picture format than the name says: {_listed(misnamed)}")
    hidden, others = _passed_over(data)
    if hidden:
        found.notes.append(f"{_count(hidden, 'hidden folder', 'hidden folders')} passed over: {_listed(hidden)}")
    if others:
        found.notes.append(f"{_count(others, 'file', 'files')} without a picture's name passed over: {_listed(others)}")
    return found


def _look(path: Path) -> tuple[str | None, str | None, bytes]:
    """Why a file cannot be used, or None; the picture's format; a hash of its bytes."""
    try:
        decode(path, 32)
        with Image.open(path, formats=FORMATS) as image:
            format = "JPEG" if image.format == "MPO" else image.format  # what some cameras call their JPEG
        with open(path, "rb") as file:
            return None, format, hashlib.file_digest(file, "sha256").digest()
    except (ValueError, OSError) as error:
        return str(error), None, b""


def _passed_over(data: ImageFolderDataModule) -> tuple[list[str], list[str]]:
    """Hidden folders, and files that are no pictures by their names, below the folders of the splits."""
    hidden, others = [], []
    for folder in data.folders():
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            above_hidden = any(part.startswith(".") or part == "__MACOSX" for part in inside[:-1])
            if above_hidden:
                continue
            if path.is_dir():
                if inside[-1].startswith(".") or inside[-1] == "__MACOSX":
                    hidden.append(str(path))
            elif not is_image_name(path):
                others.append(str(path))
    return hidden, others


def _tell_duplicates(found: Scan, groups: Iterable[Sequence[tuple[str, str, str]]]) -> None:
    """Groups of (split, class, place) that hold the same picture."""
    same = [group for group in groups if len(group) > 1]
    across = [group for group in same if len({split for split, _, _ in group}) > 1]
    torn = [group for group in same if len({name for _, name, _ in group}) > 1]
    within = [group for group in same if group not in across and group not in torn]
    for into, groups, what in (
        (found.problems, across, "in more than one split"),
        (found.problems, torn, "in more than one class"),
        (found.notes, within, "more than once in a split"),
    ):
        if groups:
            texts = [" = ".join(f"{place} [{split}, {name}]" for split, name, place in group) for group in groups]
            into.append(f"{_count(texts, 'picture occurs', 'pictures occur')} {what}: {_listed(texts)}")


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _listed(items: Sequence[str]) -> str:
    more = f"; and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more
