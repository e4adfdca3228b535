"""A trained network with its classes, input size and normalization."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..datamodules.decode import ImageSource, decode, to_array
from ..errors import UserError
from ..models.weights import check_weights, load_weights
from ..runs import checkpoint as checkpoint_files
from .calibration import Calibration, check_width, features_and_logits, read_calibration
from .images import name_of, to_list

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
        calibration: what evaluate.py has measured, as in a checkpoint.
    """

    mean: torch.Tensor  # (1, C, 1, 1)
    std: torch.Tensor

    def __init__(
        self,
        model: nn.Module,
        description: Mapping[str, Any],
        calibration: Calibration | None = None,
    ):
        super().__init__()
        self.model = model
        self.calibration = calibration or Calibration()
        self.known = self.calibration.known  # as a module, which `to` moves
        self.classes: list[str] = list(description["classes"])
        self.channels: int = description["channels"]
        self.image_size: int | None = description.get("image_size")
        self.resize: str = description.get("resize", "stretch")
        self.register_buffer("mean", torch.tensor(description["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(description["std"]).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) -> logits (N, num_classes), divided by the temperature."""
        logits = self.model(self.normalize(images))
        if self.calibration.temperature != 1:
            logits = logits / self.calibration.temperature
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
        return self._probabilities([self._prepare(image) for image in to_list(images)])

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
                found = to_list(image)
                if len(found) != 1:
                    raise UserError(f"The item has {len(found)} images.", "Give one per item.")
                results.append(self._prepare(found[0]))
            except UserError as error:
                results.append(error)
        usable = [i for i, result in enumerate(results) if isinstance(result, torch.Tensor)]
        for i, row in zip(usable, self._probabilities([results[i] for i in usable]), strict=True):
            results[i] = row
        return results

    @torch.inference_mode()
    def is_unknown(self, images: Any) -> torch.Tensor:
        """bool (N,): which images are unlike those of the training, see `KnownImages`.

        Args:
            images: as in `predict`.

        Raises:
            UserError: the checkpoint is not calibrated, or as in `predict`.
        """
        if self.known is None:
            raise UserError(
                "This checkpoint does not know the images of its training.",
                "Run evaluate.py calibrate=true; the network must end in a linear layer.",
            )
        inputs = [self._prepare(image) for image in to_list(images)]
        batches = self._batches(inputs)
        rows = [self.known(features_and_logits(self, batch)[0]) for batch in batches]
        return torch.cat(rows) > 1 if rows else torch.empty(0, dtype=torch.bool)

    def measure(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """uint8 (N, C, image_size, image_size) -> class probabilities (N, num_classes) and the
        distances (N,) of `known`, where the checkpoint has it."""
        if self.known is None:
            return self(images).softmax(1), None
        features, logits = features_and_logits(self, images)
        return logits.softmax(1), self.known(features)

    def _probabilities(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """uint8 images (C, H, W) of the network's size -> (N, num_classes)."""
        rows = [self(batch).softmax(1) for batch in self._batches(inputs)]
        return torch.cat(rows) if rows else torch.empty(0, len(self.classes))

    def _batches(self, inputs: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """uint8 images (C, H, W) of the network's size in batches, on its device."""
        if inputs:
            size = batch_size(inputs[0].shape[-1], self.mean.device)
            for batch in torch.stack(inputs).split(size):
                yield batch.to(self.mean.device)

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
                f"{name_of(image)}: {error}.", "Give an image file that can be read."
            ) from None
        return torch.from_numpy(array)


def batch_size(image_size: int, device: torch.device | None = None) -> int:
    """Images that a network gets at once: fewer of large ones, and fewer on a CPU."""
    max_pixels = MAX_PIXELS_CPU if device and device.type == "cpu" else MAX_PIXELS
    return max(1, min(BATCH_SIZE, max_pixels // image_size**2))


def load(path: str | os.PathLike, model: nn.Module | None = None) -> Classifier:
    """The trained network of a checkpoint file, in evaluation mode, on the CPU.

    Args:
        path: a checkpoint, a run folder for its best one, or a folder of `export.py format=hub`.
        model: the network to load the weights into, for a task composed in Python.

    Raises:
        UserError: the file is missing, damaged or hostile, or does not describe its network.
    """
    checkpoint = checkpoint_files.read(path)
    network, calibration = build_network(checkpoint, model), read_calibration(checkpoint)
    classifier = Classifier(network, checkpoint["description"], calibration)
    if calibration.known is not None:
        check_width(calibration.known, classifier)
    return classifier.eval()


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
