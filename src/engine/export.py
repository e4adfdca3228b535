"""Exporting a checkpoint for other programs, and comparing it with the trained network."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ..errors import UserError
from ..inference.classifier import Classifier, build_network
from ..runs import checkpoint
from ..runs.reading import check_folder
from .export_formats import READERS, WRITERS, Network, check_format, silence
from .prediction_files import ImageFiles, find_files
from .rebuild import rebuild_datamodule

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # between logits; relative where they are larger than 1
BATCH_SIZES = (1, 2, 7)  # of the random images that are compared; the exporter sees 2
MAX_IMAGES = 64  # real images that are compared


def export(cfg: DictConfig) -> Path:
    """Write `cfg.ckpt` as `cfg.format` to `cfg.output` if both networks compute the same logits.

    The graph takes uint8 `images` (N, C, H, W) with any N and returns `logits` (N, num_classes).
    Normalization is inside. The file holds class names, size, channels and the way in which images
    are resized: ONNX in `metadata_props`, pt2 in the extra file `metadata.json`.

    Returns:
        The path of the exported file.

    Raises:
        UserError: no such checkpoint or format, missing packages, or a network that cannot be
            exported or computes other logits after the export.
    """
    stored = checkpoint.read(cfg.ckpt)
    check_format(cfg.format)
    classifier = Classifier(build_network(stored), stored["description"]).eval()
    target = _target_path(checkpoint.find(cfg.ckpt), cfg.output, f".{cfg.format}")
    random_images = [_random_images(classifier, count) for count in BATCH_SIZES]
    images, source = _real_images(cfg.path, stored, classifier)
    # The name ends in the format because torch.export.save warns about other names than .pt2.
    part = target.with_name(f".{target.stem}.part.{cfg.format}")
    try:
        with silence():
            WRITERS[cfg.format](classifier, random_images[1], part)
            exported = READERS[cfg.format](part)
            differences = {
                "random images": _largest_difference(classifier, exported, random_images)
            }
            if images is not None:
                differences[source] = _largest_difference(classifier, exported, [images])
        _check_differences(differences)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    log.info("Largest difference from the logits of the trained network (allowed: %g):", TOLERANCE)
    for name, difference in differences.items():
        log.info("  %.1e on %s", difference, name)
    if images is None:
        log.info("  not compared on real images: %s", source)
    log.info("Takes uint8 images (N, %d, %d, %d), not normalized", *random_images[0].shape[1:])
    megabytes = target.stat().st_size / 1e6
    log.info("Returns logits of %d classes; %.1f MB", len(classifier.classes), megabytes)
    log.info("%s", target)
    return target


def _target_path(ckpt: Path, output: str | None, suffix: str) -> Path:
    target = Path(output).expanduser().absolute() if output else ckpt.absolute().parent
    if output is None:
        check_folder(target)  # it may come from somebody else
    if target.is_dir():
        return target / ckpt.with_suffix(suffix).name
    if target.suffix != suffix:
        raise UserError(
            f"output={output} does not end in {suffix}.",
            "Name a file that does, a folder, or another format=.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


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


def _random_images(classifier: Classifier, count: int) -> torch.Tensor:
    assert classifier.image_size is not None  # `build_network` accepts no checkpoint without it
    shape = (count, classifier.channels, classifier.image_size, classifier.image_size)
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _real_images(
    path: str | None, stored: dict[str, Any], classifier: Classifier
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
        return _own_images(stored)
    except Exception as error:  # missing data cause errors of any kind; this check is optional
        reason = error.problem if isinstance(error, UserError) else type(error).__name__
        return None, f"its own data cannot be read here ({reason}); give images with path=..."


def _own_images(stored: dict[str, Any]) -> tuple[torch.Tensor, str]:
    spec = (stored["description"].get("config") or {}).get("data") or {}
    # Images in files: decode what is compared, not the whole split.
    data = rebuild_datamodule(stored, {"cache_gb": 0} if "resize" in spec else {})
    data.prepare_data = lambda: None  # type: ignore[method-assign]  # no downloads
    split = "test" if data.has_test else "val"
    data.setup("test" if data.has_test else "fit")
    positions = torch.arange(min(MAX_IMAGES, data.sizes()[split]))
    return data.images(split, positions), f"{len(positions)} {split} images of its own data"
