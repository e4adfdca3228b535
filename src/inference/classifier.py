"""A trained network with its classes, input size and normalization."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import to_pil_image

from ..datamodules.decode import ImageSource, decode, to_8_bit, to_array
from ..errors import UserError
from ..models.weights import check_weights, load_weights
from ..runs import checkpoint as checkpoint_files

PIXEL_TYPES = (torch.uint8, torch.uint16, np.uint8, np.uint16)
BATCH_SIZE = 64  # images that a network gets at once where nobody says otherwise
MAX_PIXELS = BATCH_SIZE * 512 * 512  # of them all, as the memory allows
# On a CPU, activations of larger batches fall out of its caches: see benchmarks/predict_speed.py.
MAX_PIXELS_CPU = 4 * 224 * 224


class Classifier(nn.Module):
    """A trained network with all that predictions need: `classes`, input size, normalization.

    Called with uint8 images (N, C, image_size, image_size) it gives logits (N, num_classes).

    Args:
        model: (N, C, H, W) normalized images -> (N, num_classes) logits.
        description: `classes`, `channels`, `mean` and `std` (of pixels from 0 to 1), and
            optionally `image_size` and `resize`, as in a checkpoint.
    """

    mean: torch.Tensor  # (1, C, 1, 1)
    std: torch.Tensor

    def __init__(self, model: nn.Module, description: Mapping[str, Any]):
        super().__init__()
        self.model = model
        self.classes: list[str] = list(description["classes"])
        self.channels: int = description["channels"]
        self.image_size: int | None = description.get("image_size")
        self.resize: str = description.get("resize", "stretch")
        self.register_buffer("mean", torch.tensor(description["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(description["std"]).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> logits (N, num_classes)."""
        logits = self.model(self.normalize(images))
        if logits.shape[-1] != len(self.classes):
            raise UserError(
                f"The network has {logits.shape[-1]} outputs for {len(self.classes)} classes.",
                "Check where the checkpoint comes from.",
            )
        return logits

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> float, scaled to 0..1, minus `mean`, divided by `std`."""
        if images.dtype != torch.uint8:
            raise UserError(
                f"The images are {images.dtype}, and this network takes uint8.",
                "Give pixels from 0 to 255, not normalized.",
            )
        scaled = images.to(self.mean.dtype) / 255
        return (scaled - self.mean) / self.std  # not in place: torch 2.6 cannot export that

    @torch.inference_mode()
    def predict(self, images: Any) -> torch.Tensor:
        """Class probabilities (N, num_classes) of images of any size and colour.

        They are resized and converted as they were in training.

        Args:
            images: the path, the bytes or the open file of an image; a Pillow image; an array
                (H, W), (H, W, C) or (N, H, W, C); a tensor (H, W), (C, H, W) or (N, C, H, W); or a
                list of such. C is 1, 2 (grey, alpha), 3 or 4 (RGB, alpha). Arrays and tensors hold
                uint8 or uint16.

        Raises:
            UserError: a file that cannot be read, or a value that is not an image.
        """
        return self._probabilities([self._prepare(image) for image in _to_list(images)])

    @torch.inference_mode()
    def predict_each(self, images: Sequence[Any]) -> list[torch.Tensor | UserError]:
        """As `predict`, for images of which some may be unusable.

        Returns:
            For each item its class probabilities (num_classes,), or the error that says why there
            are none.
        """
        results: list[Any] = []  # first the prepared images
        for image in images:
            try:
                found = _to_list(image)
                if len(found) != 1:
                    raise UserError(f"The item has {len(found)} images.", "Give one per item.")
                results.append(self._prepare(found[0]))
            except UserError as error:
                results.append(error)
        usable = [i for i, result in enumerate(results) if isinstance(result, torch.Tensor)]
        for i, row in zip(usable, self._probabilities([results[i] for i in usable]), strict=True):
            results[i] = row
        return results

    def _probabilities(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """uint8 images (C, H, W) of the network's size -> (N, num_classes)."""
        if not inputs:
            return torch.empty(0, len(self.classes))
        size = batch_size(inputs[0].shape[-1], self.mean.device)
        batches = torch.stack(inputs).split(size)
        return torch.cat([self(batch.to(self.mean.device)).softmax(1) for batch in batches])

    def _prepare(self, image: Image.Image | ImageSource) -> torch.Tensor:
        """uint8 (C, H, W) of the size and channels that the network takes."""
        fill = self.mean.flatten().tolist()
        if isinstance(image, Image.Image):
            size = self.image_size or image.height
            return torch.from_numpy(to_array(image, size, self.channels, self.resize, fill))
        if self.image_size is None:
            problem = "This checkpoint does not contain the image size of its network."
            raise UserError(problem, "Give arrays of that size.")
        try:
            array = decode(image, self.image_size, self.channels, self.resize, fill)
        except ValueError as error:
            raise UserError(
                f"{_name(image)}: {error}.", "Give an image file that can be read."
            ) from None
        return torch.from_numpy(array)


def batch_size(image_size: int, device: torch.device | None = None) -> int:
    """Images that a network gets at once: fewer of large ones, and fewer on a CPU."""
    max_pixels = MAX_PIXELS_CPU if device and device.type == "cpu" else MAX_PIXELS
    return max(1, min(BATCH_SIZE, max_pixels // image_size**2))


def _name(source: ImageSource) -> str:
    """What an error calls a file: its path, where it has one."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "name", None) or "The content that was given")


def _to_list(images: Any) -> list[Image.Image | ImageSource]:
    """All that `Classifier.predict` accepts as Pillow images, paths and contents of files."""
    if isinstance(images, Image.Image | str | os.PathLike | bytes) or hasattr(images, "read"):
        return [images]
    if isinstance(images, list | tuple):
        return [image for item in images for image in _to_list(item)]
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise UserError(
            f"{type(images).__name__} is not an image.",
            "Give paths, bytes or open files, Pillow images, arrays or tensors.",
        )
    if images.dtype not in PIXEL_TYPES:
        raise UserError(
            f"The pixels are {images.dtype}, whose range is not known.",
            "Give uint8 from 0 to 255; for floats from 0 to 1: (255 * pixels).round() as uint8.",
        )
    if images.ndim == 4:
        return [_to_pillow(image) for image in images]
    return [_to_pillow(images)]


def _to_pillow(pixels: torch.Tensor | np.ndarray) -> Image.Image:
    """A tensor (H, W) or (C, H, W), or an array (H, W) or (H, W, C), as a Pillow image."""
    kind = f"{type(pixels).__name__} {tuple(pixels.shape)}"
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.cpu().numpy()
        if pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels > 4 or 0 in pixels.shape:
        raise UserError(
            f"The {kind} is not an image.",
            "Arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or "
            "(N, C, H, W), with 1 to 4 channels.",
        )
    return to_pil_image(to_8_bit(pixels) if pixels.dtype == np.uint16 else pixels)


def load(path: str | os.PathLike, model: nn.Module | None = None) -> Classifier:
    """The trained network of a checkpoint file, in evaluation mode, on the CPU.

    Args:
        path: a checkpoint, a run folder for its best one, or a folder of `export.py format=hub`.
        model: the network to load the weights into, for a task composed in Python.

    Raises:
        UserError: the file is missing, damaged or hostile, or does not describe its network.
    """
    checkpoint = checkpoint_files.read(path)
    return Classifier(build_network(checkpoint, model), checkpoint["description"]).eval()


def build_network(checkpoint: Mapping[str, Any], model: nn.Module | None = None) -> nn.Module:
    """The trained network of a checkpoint; pretrained weights are not downloaded.

    Args:
        checkpoint: from `runs.checkpoint.read`.
        model: the network to load the weights into, where the checkpoint does not describe one.

    Raises:
        UserError: no description of the network, or weights of another architecture.
    """
    weights = {
        name.removeprefix("model.").replace("_orig_mod.", ""): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("model.")
    }
    if model is None:
        model = _construct(checkpoint["description"], weights)
    load_weights(model, weights)
    return model


def _construct(description: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> nn.Module:
    spec = description.get("model")
    if not isinstance(spec, dict) or description.get("image_size") is None:
        raise UserError(
            "This checkpoint comes from a task composed in Python: it does not describe a network.",
            "Build the network yourself and pass it: src.load(path, model=net).",
        )
    overrides = {"weights": None} if "weights" in spec else {}
    try:
        # Built without memory first: a hostile description never allocates what it names.
        with torch.device("meta"):
            empty = checkpoint_files.construct(spec, "models", nn.Module, **overrides)
        check_weights(empty, weights)
    except UserError as error:
        # A network that reads its own values while it is built cannot be built that way.
        if not isinstance(error.__cause__, NotImplementedError):
            raise
    return checkpoint_files.construct(spec, "models", nn.Module, **overrides)
