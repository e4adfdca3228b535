"""A checkpoint as ONNX or as torch.export's pt2: pixels in, logits out, normalisation inside, checked against the network it comes from.

Formats: https://onnx.ai and https://docs.pytorch.org/docs/stable/export.html
"""

import importlib.util
import itertools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from src import checkpoint as ckpt
from src.classifier import Classifier
from src.datamodules import ImageDataModule
from src.errors import UserError
from src.prediction import DecodedFiles, count, find

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # between logits; relative where they are larger than 1
BATCHES = (1, 2, 7)  # sizes that random pixels are compared at: the exporter sees 2
REAL = 64  # real pictures compared, at most
NEEDED = ("onnx", "onnxscript", "onnxruntime")
OLDEST_FOR_ONNX = (2, 8)  # the exporter of torch 2.6 fails inside onnxscript; 2.7 was not tried


def export(cfg: DictConfig) -> Path:
    """Write `cfg.ckpt` as `cfg.format` to `cfg.output`, if what it computes is what the network computes.

    The graph takes uint8 `images` (N, C, H, W) with any N and gives `logits` (N, num_classes). Class names, size, channels and how
    pictures are brought to the size are in the file: in ONNX's `metadata_props`, in pt2's extra file `metadata.json`.

    Raises:
        UserError: no such checkpoint or format, packages that are missing, a network that cannot be exported or comes out different.
    """
    if cfg.format not in WRITERS:
        raise UserError(f"format={cfg.format} is not known.", f"Choose {' or '.join(WRITERS)}.")
    missing = [name for name in NEEDED if cfg.format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format=onnx needs {', '.join(missing)}.", 'Install the extra: pip install -e ".[export]"')
    if cfg.format == "onnx" and _torch_version() < OLDEST_FOR_ONNX:
        raise UserError(
            f"format=onnx needs torch {'.'.join(map(str, OLDEST_FOR_ONNX))}; this is {torch.__version__}.", "Update it, or use format=pt2."
        )
    stored = ckpt.read(cfg.ckpt)
    net = Classifier(ckpt.network(stored), stored["description"]).eval()
    target = _target(Path(cfg.ckpt), cfg.output, cfg.format)
    real, source = _real_images(cfg.path, stored, net)
    metadata = {
        "classes": net.classes,
        "channels": net.channels,
        "image_size": net.image_size,
        "resize": net.resize,
        "input": "uint8 (N, channels, image_size, image_size), 0 to 255, not normalised",
        "output": "logits (N, classes)",
    }
    # torch.export.save warns of names that do not end in .pt2.
    part = target.with_name(f".{target.stem}.part.{cfg.format}")
    try:
        with _quiet():
            WRITERS[cfg.format](net, _random(net, 2), metadata, part)
            compute = READERS[cfg.format](part)
            checked = [_compare(net, compute, [_random(net, n) for n in BATCHES])]
            if real is not None:
                checked.append(_compare(net, compute, [real]))
        for kind, difference in zip(("random pixels", source), checked, strict=False):
            if not difference <= TOLERANCE:
                raise UserError(
                    f"The exported network differs from the trained one by {difference:.1e} on {kind}; {TOLERANCE:g} is allowed.",
                    f"No file was written. Try format={next(name for name in WRITERS if name != cfg.format)}.",
                )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    log.info("Largest difference between its logits and the trained network's (allowed: %g):", TOLERANCE)
    log.info("  %.1e on random pixels, batches of %s", checked[0], ", ".join(map(str, BATCHES)))
    log.info("  %s", f"{checked[1]:.1e} on {source}" if real is not None else f"on no real pictures: {source}")
    log.info(
        "Takes uint8 images (N, %d, %d, %d), not normalised, gives logits of %d classes; %.1f MB\n%s",
        net.channels, net.image_size, net.image_size, len(net.classes), target.stat().st_size / 1e6, target,
    )  # fmt: skip
    return target


def _target(checkpoint: Path, output: str | None, suffix: str) -> Path:
    if output is None:
        return checkpoint.absolute().with_suffix(f".{suffix}")
    target = Path(output).expanduser().absolute()
    if target.is_dir():
        return target / checkpoint.with_suffix(f".{suffix}").name
    if target.suffix != f".{suffix}":
        raise UserError(f"output={output} does not end in .{suffix}.", "Name a file that does, a folder, or another format=.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _torch_version() -> tuple[int, ...]:
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


# The two formats ------------------------------------------------------------------------------------------------------


def _write_onnx(net: Classifier, example: torch.Tensor, metadata: dict[str, Any], path: Path) -> None:
    if sum(tensor.nbytes for tensor in net.state_dict().values()) > 1.9e9:
        raise UserError("An ONNX file holds at most 2 GB, and the network has more.", "Use format=pt2.")
    program = _exported(
        lambda shapes: torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    )
    values = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    program.model.metadata_props.update(values)
    program.save(path, external_data=False)


def _read_onnx(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_pt2(net: Classifier, example: torch.Tensor, metadata: dict[str, Any], path: Path) -> None:
    program = _exported(lambda shapes: torch.export.export(net, (example,), dynamic_shapes=shapes))
    torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata, ensure_ascii=False)})


def _read_pt2(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.export.load(path).module()


WRITERS = {"onnx": _write_onnx, "pt2": _write_pt2}
READERS = {"onnx": _read_onnx, "pt2": _read_pt2}


def _exported(trace: Callable[[Any], Any]) -> Any:
    try:
        return trace(({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # the exporters raise errors of many kinds, also plain Exception
        raise UserError(
            f"The network cannot be exported: {str(error).strip().splitlines()[0]}.",
            "What hangs on the values of the pictures, or on the size of the batch, cannot be part of a graph.",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about steps that went well."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


# The comparison -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _compare(net: Classifier, compute: Callable[[torch.Tensor], torch.Tensor], batches: list[torch.Tensor]) -> float:
    """Largest difference between the two networks' logits, as a share of the largest logit where that is above 1."""
    differences = []
    for images in batches:
        expected = net(images)
        differences.append((compute(images) - expected).abs().max() / expected.abs().max().clamp(min=1))
    return torch.stack(differences).max().item()


def _random(net: Classifier, n: int) -> torch.Tensor:
    size = net.image_size or 0  # which a file that describes its network always has
    shape = (n, net.channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


def _real_images(path: str | None, stored: dict[str, Any], net: Classifier) -> tuple[torch.Tensor | None, str]:
    """uint8 (N, C, H, W) and what they are; or None and why there are none."""
    if path is not None:
        count(path)
        files = list(itertools.islice((file for file, wanted in find(path) if wanted), REAL))
        _, images, failures, _ = DecodedFiles(net)[files]
        if not len(images):
            raise UserError(
                f"None of {len(files)} files of {path} can be read: {failures[0][0]}: {failures[0][1]}.", "Give other pictures."
            )
        return images, f"{len(images)} pictures of {path}"
    spec = (stored["description"].get("config") or {}).get("data")
    if spec is None:
        return None, "the checkpoint does not say which data it was trained on; name some with path=..."
    spec = {key: value for key, value in spec.items() if key not in ckpt.OF_TRAINING}
    if "resize" in spec:  # pictures in files
        spec["cache_gb"] = 0  # decode what is looked at, not the whole split
    try:
        data: ImageDataModule = ckpt.construct(spec, "datamodules", ImageDataModule)
        data.prepare_data = lambda: None  # type: ignore[method-assign]  # nothing is downloaded for this
        split = "test" if data.has_test else "val"
        data.setup("test" if data.has_test else "fit")
        images = data.images(split, torch.arange(min(REAL, data.sizes()[split])))
    except Exception:  # data that are not here can be missing in any way
        return None, "its own data cannot be read here; name some with path=..."
    return images, f"{len(images)} {split} pictures of its own data"
