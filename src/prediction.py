"""Asking a checkpoint about any number of picture files, in memory that does not grow with them."""

import csv
import glob
import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from src.classifier import Classifier, load
from src.decode import EXTENSIONS, decode, is_image_name
from src.errors import UserError
from src.grad_cam import grad_cam, overlay
from src.run_folder import RunFolder, command_line
from src.text_table import aligned

log = logging.getLogger(__name__)
SHOWN = 20  # rows of a table on the screen; the files hold all
VIEW = 224  # least height and width of a Grad-CAM picture, in pixels


def predict(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Predict the classes of all pictures that `cfg.path` names.

    Writes into `folder`, file by file as they are predicted: `predictions.csv`, `predictions.jsonl` (one JSON object a line),
    `unreadable.csv` where files could not be read, and `cam/` with `cam=true`; at the end `results.json`.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: no usable checkpoint, no pictures, or a setting that cannot work.
    """
    for name, least in (("top_k", 1), ("batch_size", 1), ("num_workers", 0)):
        value = cfg[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise UserError(f"{name}={value} does not work.", f"Give {name} a whole number, at least {least}.")
    checkpoint, path = str(cfg.ckpt), str(cfg.path)
    total, others = count(path)
    device = choose_device(cfg.device)
    net = load(checkpoint).to(device)
    run = RunFolder(folder)
    run.start(OmegaConf.to_container(cfg, resolve=True), command_line())
    try:
        results = _predict(cfg, net, path, total, run.path)
    except BaseException as error:
        draw("")
        run.fail(f"{type(error).__name__}: {error}")
        raise
    run.finish({"status": "completed", "checkpoint": os.path.abspath(checkpoint), **results})
    if others:
        log.info("Passed over %s without a picture's extension", f"{others:,}")
    log.info("%s", run.path)
    return results


def _predict(cfg: DictConfig, net: Classifier, path: str, total: int, folder: Path) -> dict[str, Any]:
    device = net.mean.device
    workers = cfg.num_workers
    if workers is None:
        workers = 0 if total <= 4 * cfg.batch_size else min(os.cpu_count() or 1, 8)
    loader = DataLoader(
        DecodedFiles(net, with_views=cfg.cam),
        sampler=batches((file for file, wanted in find(path) if wanted), cfg.batch_size),
        batch_size=None,  # the sampler's items are batches already
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    top_k = min(cfg.top_k, len(net.classes))
    inside = os.path.join(os.path.expanduser(path), "")  # not repeated on the screen
    rows: list[list[str]] = []  # for the screen, like `rejected`: the first ones alone
    rejected: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    unreadable = 0
    start = drawn = time.monotonic()
    shutil.rmtree(folder / "cam", ignore_errors=True)  # of an earlier prediction into this folder
    with Tables(folder, top_k) as tables:
        for files, images, failures, views in loader:
            for file, reason in failures:
                tables.unreadable(file, reason)
            rejected += [(file.removeprefix(inside), reason) for file, reason in failures[: SHOWN - len(rejected)]]
            unreadable += len(failures)
            if files:
                images = images.to(device, non_blocking=True)
                with torch.inference_mode():
                    values, indices = net(images).softmax(1).topk(top_k)
                cams: list[str | None] = [None] * len(files)
                if cfg.cam:
                    done = sum(counts.values())
                    drawings = [f"cam/{done + i:06d}_{Path(file).stem[:50]}.jpg" for i, file in enumerate(files, 1)]
                    maps = grad_cam(net.model, net.normalize(images), indices[:, 0])
                    save_pictures(overlay(views, maps.cpu()), [folder / name for name in drawings])
                    cams = [*drawings]
                for file, cam, *answer in zip(files, cams, indices.tolist(), values.tolist(), strict=True):
                    answer = [(net.classes[i], p) for i, p in zip(*answer, strict=True)]
                    tables.prediction(file, answer, cam)
                    counts[answer[0][0]] += 1
                    if len(rows) < SHOWN:
                        rows.append([file.removeprefix(inside), *(f"{name} {p:.4f}" for name, p in answer)])
            if time.monotonic() - drawn >= 0.5:
                drawn = time.monotonic()
                done = sum(counts.values()) + unreadable
                failed = f"  {unreadable:,} unreadable" if unreadable else ""
                draw(f"{done:,} of {total:,} files  {done / (drawn - start):,.0f} files/s{failed}")
    draw("")
    if rows:
        log.info("%s", aligned([["file", "likeliest", *(f"{i}." for i in range(2, top_k + 1))], *rows]))
        _more(sum(counts.values()), "predictions.csv")
    by_class = ", ".join(f"{name}: {number:,}" for name, number in counts.most_common(10)) + (", ..." if len(counts) > 10 else "")
    log.info("Predicted %s%s", f"{sum(counts.values()):,}", f" ({by_class})" if counts else "")
    if rejected:
        log.info("Could not read %s:\n%s", f"{unreadable:,}", aligned(rejected))
        _more(unreadable, "unreadable.csv")
    return {"predictions": sum(counts.values()), "unreadable": unreadable, "classes": dict(counts.most_common())}


def _more(number: int, name: str) -> None:
    if number > SHOWN:
        log.info("... and %s more, in %s", f"{number - SHOWN:,}", name)


# Files ----------------------------------------------------------------------------------------------------------------


def find(path: str) -> Iterator[tuple[str, bool]]:
    """The files that a person means by a file, a folder or a pattern, sorted, each with whether it is to be read.

    What exists as typed is never taken for a pattern. A folder is searched with its sub-folders; what is hidden in it is left out,
    and what has no picture's extension is not to be read. A file that is named, or that a pattern matches, always is.
    Memory holds the names of one folder, or of what the pattern matches.
    """
    home = os.path.expanduser(path)
    if os.path.lexists(path) or os.path.lexists(home):
        starts = [path if os.path.lexists(path) else home]
    else:
        starts = sorted(glob.iglob(home, recursive=True))
        if "**" in path:  # matches the files inside of every folder that it matches as well
            starts = [start for start in starts if not os.path.isdir(start)]
    for start in starts:
        if os.path.isdir(start):
            yield from _walk(start)
        else:
            yield start, True


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    closed: list[OSError] = []
    for base, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(base, name), is_image_name(Path(name))
    for error in closed:  # a folder that may not be opened is told like a file
        yield error.filename, True


def count(path: str) -> tuple[int, int]:
    """How many files are to be read, and how many others lie beside them.

    Raises:
        UserError: nothing to read.
    """
    total = others = 0
    for _, wanted in find(path):
        total, others = total + wanted, others + (not wanted)
    if total:
        return total, others
    extensions = ", ".join(sorted(EXTENSIONS))
    if os.path.isdir(os.path.expanduser(path)):
        holds = f"holds {others:,} files, but no pictures" if others else "holds no files"
        raise UserError(f"The folder {path} {holds}.", f"Files that end in {extensions} are looked for, in sub-folders as well.")
    if glob.has_magic(path):
        raise UserError(f"Nothing matches {path}.", f"Check the pattern; it starts at {os.getcwd()}, and ** stands for any sub-folders.")
    raise UserError(f"There is no {path}.", f"Give a picture, a folder or a quoted pattern with path=...; this is {os.getcwd()}.")


def batches(files: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Lists of `batch_size` files, drawn only as they are asked for."""
    batch: list[str] = []
    for file in files:
        batch.append(file)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class DecodedFiles(Dataset):
    """Decodes a list of files at once, in a loader's worker; what cannot be decoded is told, not raised.

    Args:
        net: for which network, whose size of pictures is known.
        with_views: decode each picture once more, in colour and at least `VIEW` pixels high, to be looked at.
    """

    def __init__(self, net: Classifier, with_views: bool = False):
        assert net.image_size is not None  # `src.checkpoint.network` wants it of every file that describes its network
        self.size, self.channels, self.resize = net.image_size, net.channels, net.resize
        self.view = max(VIEW, self.size) if with_views else None

    def __getitem__(self, files: list[str]) -> tuple[list[str], torch.Tensor, list[tuple[str, str]], torch.Tensor]:
        """Of a list of files: the B that could be decoded, their uint8 images (B, C, size, size), (file, reason) of the others, and views
        (B, 3, view, view)."""
        images = torch.empty(len(files), self.channels, self.size, self.size, dtype=torch.uint8)
        views = torch.empty(len(files) if self.view else 0, 3, self.view or 0, self.view or 0, dtype=torch.uint8)
        decoded: list[str] = []
        failures: list[tuple[str, str]] = []
        for file in files:
            row = len(decoded)
            try:
                images[row] = torch.from_numpy(decode(file, self.size, self.channels, self.resize))
                if self.view:
                    views[row] = torch.from_numpy(decode(file, self.view, 3, self.resize))
            except ValueError as error:
                failures.append((file, str(error)))
            else:
                decoded.append(file)
        return decoded, images[: len(decoded)], failures, views[: len(decoded)]


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, else the processor.

    Raises:
        UserError: no such device, or none on this machine.
    """
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return here or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not known.", "Choose auto, cpu, cuda or mps.") from None
    if device.type != "cpu" and (here is None or here.type != device.type or (device.index or 0) >= torch.accelerator.device_count()):
        raise UserError(
            f"device={name}, but torch {torch.__version__} finds no such device on this machine.", "Set device=auto or device=cpu."
        )
    return device


# What is written and shown --------------------------------------------------------------------------------------------


class Tables:
    """The files that a prediction leaves, written row by row under a preliminary name and renamed at the end.

    File names that are no valid UTF-8 keep their bytes in CSV and are escaped in JSON.
    """

    def __init__(self, folder: Path, top_k: int):
        self.folder, self.top_k = folder, top_k
        self._files = ExitStack()
        self._rejected: Any = None

    def __enter__(self) -> "Tables":
        self._csv = csv.writer(self._open("predictions.csv", "surrogateescape"), lineterminator="\n")
        self._json = self._open("predictions.jsonl", "backslashreplace")
        ranks = [f"{kind}_{i + 1}" for i in range(self.top_k) for kind in ("class", "probability")]
        self._csv.writerow(["file", *ranks])
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._files.close()
        if kind is None:  # else the names go on saying that they are parts
            (self.folder / "unreadable.csv").unlink(missing_ok=True)  # of an earlier prediction into this folder
            for part in self.folder.glob("*.part"):
                part.replace(part.with_suffix(""))

    def _open(self, name: str, errors: str):
        return self._files.enter_context(open(self.folder / f"{name}.part", "w", newline="", encoding="utf-8", errors=errors))

    def prediction(self, file: str, answer: Sequence[tuple[str, float]], cam: str | None) -> None:
        """(class, probability) pairs of a file, the likeliest first, and where its Grad-CAM lies."""
        self._csv.writerow([file, *(value for name, p in answer for value in (name, f"{p:.6f}"))])
        row = {"file": file, "predictions": [{"class": name, "probability": round(p, 6)} for name, p in answer]}
        self._json.write(json.dumps(row | ({"cam": cam} if cam else {}), ensure_ascii=False) + "\n")

    def unreadable(self, file: str, reason: str) -> None:
        if self._rejected is None:
            self._rejected = csv.writer(self._open("unreadable.csv", "surrogateescape"), lineterminator="\n")
            self._rejected.writerow(["file", "reason"])
        self._rejected.writerow([file, reason])


def save_pictures(images: torch.Tensor, paths: Sequence[Path]) -> None:
    """uint8 (N, 3, H, W) as picture files."""
    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=90)


def draw(text: str) -> None:
    """Rewrite the line that shows how far it is, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
