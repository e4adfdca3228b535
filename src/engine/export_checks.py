"""Comparing an exported network with the trained one: on pixels, and on files from end to end."""

import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..datamodules import ImageDataModule
from ..errors import UserError
from ..inference.classifier import Classifier, batch_size
from ..runs.files import read_json
from .export_files import INFER, PREPROCESS
from .export_formats import WRITERS, Network
from .prediction_files import ImageFiles, find_files
from .rebuild import rebuild_datamodule

TOLERANCE = 1e-4  # between logits; relative where they are larger than 1
BATCH_SIZES = (1, 2, 7)  # of the random images that are compared; the exporter sees 2
MAX_IMAGES = 64  # real images whose logits are compared
MAX_FILES = 2000  # files that are compared from end to end


def compare_pixels(
    classifier: Classifier,
    exported: Network,
    real_images: torch.Tensor | None,
    source: str,
) -> dict[str, float]:
    """Return the largest differences of logits on random and on real images.

    Raises:
        UserError: a difference is larger than `TOLERANCE`.
    """
    batches = [random_images(classifier, count) for count in BATCH_SIZES]
    differences = {"random images": _largest_difference(classifier, exported, batches)}
    if real_images is not None:
        differences[source] = _largest_difference(classifier, exported, [real_images])
    _check_differences(differences)
    return differences


@torch.inference_mode()
def _largest_difference(
    trained: Network, exported: Network, batches: Iterable[torch.Tensor]
) -> float:
    """Return the largest difference of logits, relative to the largest logit if that is above 1."""
    differences = []
    for images in batches:
        expected = trained(images)
        difference = (exported(images) - expected).abs().max()
        differences.append(difference / expected.abs().max().clamp(min=1))
    return torch.stack(differences).max().item()


def _check_differences(differences: dict[str, float]) -> None:
    for source, difference in differences.items():
        if not difference <= TOLERANCE:  # also where it is NaN
            raise UserError(
                f"The exported network differs from the trained one by {difference:.1e} on "
                f"{source}; {TOLERANCE:g} is allowed.",
                f"No file was written. Try another format: {' or '.join(WRITERS)}.",
            )


def random_images(classifier: Classifier, count: int) -> torch.Tensor:
    """Return uint8 images (count, C, H, W)."""
    assert classifier.image_size is not None  # `build_network` accepts no checkpoint without it
    shape = (count, classifier.channels, classifier.image_size, classifier.image_size)
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def real_images(
    path: str | None, root: str | None, stored: dict[str, Any], classifier: Classifier
) -> tuple[torch.Tensor | None, str]:
    """Return uint8 images (N, C, H, W) and their description, or None and why there are none."""
    if path is not None:
        files = find_files(path)[0][:MAX_IMAGES]
        batch = ImageFiles(classifier)[files]
        if not batch.files:
            raise UserError(
                f"None of {len(files)} files of {path} can be read: {batch.failures[0]}.",
                "Give other images.",
            )
        return batch.images, f"{len(batch.files)} images of {path}"
    try:
        return _own_images(stored, root)
    except Exception as error:  # missing data cause errors of any kind; this check is optional
        reason = error.problem if isinstance(error, UserError) else type(error).__name__
        return None, f"its own data cannot be read here ({reason}); give images with path=..."


def own_data(stored: dict[str, Any], root: str | None) -> ImageDataModule:
    """Return the data of a checkpoint, which are not downloaded.

    Args:
        root: their folder; None: `data`, or a data set without files.
    """
    spec = (stored["description"].get("config") or {}).get("data") or {}
    # Images in files: decode what is compared, not the whole split.
    changes: dict[str, Any] = {"cache_gb": 0} if "resize" in spec else {}
    if root is not None:
        changes["root"] = root
    data = rebuild_datamodule(stored, changes)
    data.prepare_data = lambda: None  # type: ignore[method-assign]  # no downloads
    return data


def _own_images(stored: dict[str, Any], root: str | None) -> tuple[torch.Tensor, str]:
    data = own_data(stored, root)
    split = "test" if data.has_test else "val"
    data.setup("test" if data.has_test else "fit")
    positions = torch.arange(min(MAX_IMAGES, data.sizes()[split]))
    return data.images(split, positions), f"{len(positions)} {split} images of its own data"


def compare_files(classifier: Classifier, path: str, folder: Path) -> dict[str, Any]:
    """Compare the predictions of predict.py with those of the exported infer.py, file by file.

    Args:
        path: a file, a folder or a pattern; of more than `MAX_FILES` files every k-th is compared.
        folder: holds the graph, preprocess.json and infer.py.

    Returns:
        By program: numbers of compared files and of flipped predictions, and the largest difference
        between two probabilities of a class. A graph that resizes is also compared on photos that
        are decoded at full size, where infer.py decodes large JPEG files at a fraction of it.
    """
    program = runpy.run_path(str(folder / INFER))
    settings = read_json(folder / PREPROCESS)
    session = program["open_session"](settings)
    ways = {INFER: settings}
    if "resize_inside" in settings:  # nothing is decoded smaller than this size
        ways["the graph on photos of full size"] = settings | {"image_size": 1 << 30}
    found = find_files(path)[0]
    files = found[:: -(-len(found) // MAX_FILES)]
    reader, size = ImageFiles(classifier), batch_size(classifier.image_size or 1)
    rows = {name: {"files": 0, "flipped": 0, "max_probability_difference": 0.0} for name in ways}
    for start in range(0, len(files), size):
        batch = reader[files[start : start + size]]
        if not batch.files:
            continue
        with torch.inference_mode():
            expected = classifier(batch.images).softmax(1)
        for name, way in ways.items():
            outputs = [program["predict"](session, file, way) for file in batch.files]
            actual = torch.stack([torch.from_numpy(output) for output in outputs])
            difference = (expected - actual).abs().max().item()
            row = rows[name]
            row["files"] += len(batch.files)
            row["flipped"] += int((expected.argmax(1) != actual.argmax(1)).sum())
            row["max_probability_difference"] = max(row["max_probability_difference"], difference)
    return rows
