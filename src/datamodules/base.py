"""The contract of a data set, and what all data sets share: splits, batches, augmentation."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..errors import UserError
from ..runs.checkpoint import ImageSize
from .check import numbers_of, require_facts
from .compose import device_part, loader_part, store_scale
from .loader import BatchLoader, build_loader, inverse_frequency, move_to_device
from .reading import read_split
from .split_checks import is_comparable, warn_of_classes, warn_of_overlap
from .splits import Groups, SplitSize, divide, hash_of, shuffle
from .transforms import PerImage, build_mixing, channel_values, convert_channels, per_image, resize


class ImageDataModule(L.LightningDataModule):
    """Images with labels, as uint8 batches (N, C, H, W) and int64 (N,).

    To add a data set, write a subclass as in `digits.py` and a YAML file beside
    `conf/data/digits.yaml`. The subclass sets its facts: `classes`, `channels`, `native_size`,
    `mean` and `std` (of pixel values scaled to 0..1). It writes `load(split)`, and `prepare_data()`
    if files have to be downloaded.

    Args:
        augment: `CropFlip`, or a transform of torchvision, which is applied image by image.
        mixup, cutmix: labels become class probabilities (N, num_classes) in training.
        resize: `stretch` to the square, `crop` its centre, or `pad` with the colour `mean`.
        cache_gb: most that the decoded images of a split may take, in 10^9 bytes; None is half of
            the free memory (for files: and disk), 0 decodes in every epoch.
        root, others: see the comments in `conf/data/base.yaml`.
    """

    classes: list[str]
    channels: int = 3
    native_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reads_root: bool = True  # False: the images are not in `root`

    def __init__(
        self,
        root: str | os.PathLike = "data",
        image_size: ImageSize | None = None,
        channels: PositiveInt | None = None,
        batch_size: PositiveInt = 128,
        eval_batch_size: PositiveInt | None = None,
        num_workers: NonNegativeInt | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        device_resident: bool = False,
        val_size: SplitSize = 0.1,
        split_seed: NonNegativeInt = 0,
        num_folds: Annotated[int, Field(ge=2)] | None = None,
        fold: NonNegativeInt = 0,
        augment: Callable[[torch.Tensor], torch.Tensor] | PerImage | None = None,
        mixup: NonNegativeFloat = 0.0,
        cutmix: NonNegativeFloat = 0.0,
        balance: Literal["none", "sampler", "loss"] = "none",
        mean: list[float] | None = None,
        std: list[PositiveFloat] | None = None,
        resize: Literal["stretch", "crop", "pad"] = "stretch",
        cache_gb: NonNegativeFloat | None = None,
    ):
        super().__init__()
        require_facts(self)
        self.root = Path(root)
        self.image_size = image_size or self.native_size
        own_channels = self.channels
        self.channels = channels or own_channels
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or max(batch_size, 64)
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.drop_last = drop_last
        self.device_resident = device_resident
        self.val_size, self.split_seed = val_size, split_seed
        self.num_folds, self.fold = num_folds, fold
        self.augment: Any = per_image(augment or None)  # an empty YAML file gives {}
        self.mixup, self.cutmix = mixup, cutmix
        self.balance, self.resize, self.cache_gb = balance, resize, cache_gb
        self.mean = channel_values("data.mean", mean or self.mean, own_channels, self.channels)
        self.std = channel_values("data.std", std or self.std, own_channels, self.channels)
        self.new_labels: torch.Tensor | None = None  # (num_classes,), see `remap_labels`
        self.groups: Groups | None = None  # of the images of `train`; `load` may set them
        self._sets: dict[str, tuple[Any, torch.Tensor]] = {}  # split -> images, labels
        self._indices: dict[str, torch.Tensor] = {}  # split -> positions in its set
        self._features: dict[str, torch.Tensor] = {}  # split -> see `cache_features`

    def load(self, split: str) -> Any:
        """Read one split: `train`, `val` or `test`.

        Returns:
            Images uint8 (N, C, H, W), or an object whose `index_select` gives such batches, and
            labels int64 (N,); or a map-style `torch.utils.data.Dataset`; or None if there is no
            such split: validation images are then taken from `train`.
        """
        raise NotImplementedError

    @property
    def has_test(self) -> bool:
        """Whether there is a test split. This reads it; subclasses that know better override."""
        self.setup("test")
        return "test" in self._sets

    def load_at(self, split: str, size: int) -> Any:
        """As `load`, with files decoded to `size`; images that are in memory are resized later."""
        return self.load(split)

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once. Lightning calls it in every process."""
        if stage in (None, "fit", "validate") and "val" not in self._sets:
            self._read("train", round(self.image_size * store_scale(self.augment)))
            self._read("val")
            if "val" not in self._sets:
                train: Any = self._sets["train"]
                if store_scale(self.augment) > 1:  # these are larger than images of evaluation
                    train = read_split(self, "train", self.image_size)
                self._sets["val"] = train
                self._indices["train"], self._indices["val"] = self.split_train(train[1])
            if is_comparable(self._sets["val"][0]):
                self._read("test")
                warn_of_overlap(self._sets)
            warn_of_classes(self)
            for split in ("train", "val"):  # so that a part of a split is a representative sample
                self._indices[split] = shuffle(self._indices[split], self.split_seed)
        if stage in (None, "test") and "test" not in self._sets:
            self._read("test")

    def _read(self, split: str, size: int | None = None) -> None:
        loaded = read_split(self, split, size or self.image_size)
        if loaded is not None:
            self._sets[split] = loaded
            self._indices[split] = torch.arange(len(loaded[1]))

    def split_train(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sorted positions of the training and of the validation images, from int64 (N,) labels."""
        return divide(self, labels)

    def remap_labels(self, classes: Sequence[str]) -> None:
        """Number the labels by another list of classes; all of ours must be in it."""
        if list(classes) != list(self.classes):
            self.new_labels = numbers_of(self.classes, classes)
            self._sets = {}  # what has been read has the labels of the data set

    def split_hash(self) -> str:
        """Identifies the training and validation images: equal for equal splits of equal data."""
        self.setup("fit")
        return hash_of([(self._indices[split], self._sets[split][1]) for split in ("train", "val")])

    def fingerprint(self) -> str:
        """Identifies the training data: equal for equal images and labels in equal order."""
        self.setup("fit")
        images, labels = self._sets["train"]
        digest = hashlib.blake2b(labels.cpu().numpy().tobytes(), digest_size=8)
        if isinstance(images, torch.Tensor):
            digest.update(images.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """Number of images in each split that has been set up."""
        return {split: len(indices) for split, indices in self._indices.items()}

    def labels(self, split: str) -> torch.Tensor:
        """int64 (N,) labels of `train`, `val` or `test`."""
        return self._sets[split][1].cpu().index_select(0, self._indices[split])

    def images(self, split: str, positions: torch.Tensor) -> torch.Tensor:
        """uint8 (len(positions), C, H, W), by positions in the order of its evaluation."""
        images = convert_channels(self._stored(split, positions), self.channels)
        return resize(images, self.image_size) if store_scale(self.augment) > 1 else images

    def _stored(self, split: str, positions: torch.Tensor) -> torch.Tensor:
        images, labels = self._sets[split]
        index = self._indices[split][positions].to(labels.device)
        return images.index_select(0, index).cpu()

    def names(self, split: str, positions: torch.Tensor) -> list[str]:
        """Names of images: their files, or their numbers in the data set."""
        return [str(i) for i in self._indices[split][positions].tolist()]

    def augmented(self, positions: torch.Tensor) -> torch.Tensor:
        """Training images as in `images`, with augmentation, before MixUp and CutMix."""
        images, per_image = self._stored("train", positions), loader_part(self.augment)
        if per_image is not None:
            images = per_image(images, self._indices["train"][positions].tolist())
        return device_part(self.augment)(convert_channels(images, self.channels))

    @property
    def class_weights(self) -> torch.Tensor | None:
        """float (num_classes,) for the loss where `balance` is `loss`, else None."""
        if self.balance != "loss":
            return None
        return inverse_frequency(self.labels("train"), len(self.classes))

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train", training=True)

    def val_dataloader(self) -> BatchLoader:
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test")

    def _loader(self, split: str, training: bool = False) -> BatchLoader:
        """The loader of a split; `training` shuffles, augments and evens out the processes."""
        self.setup("test" if split == "test" else "fit")
        if split not in self._sets:
            raise UserError(
                "This data set has no test split.", "Evaluate its validation split with split=val."
            )
        if self.device_resident and self.trainer is not None:
            self._sets = move_to_device(self._sets, self.trainer.strategy.root_device)
        if split in self._features:
            features, labels = self._features[split], self.labels(split)
            return build_loader(self, features, labels, torch.arange(len(labels)), training)
        return build_loader(self, *self._sets[split], self._indices[split], training)

    def cache_features(self, split: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let a loader give `function(images)`, computed once on the device, for the images."""
        device = "cpu" if self.trainer is None else self.trainer.strategy.root_device
        batches = (images.to(device) for images, _ in self._loader(split))
        rows = [function(convert_channels(images, self.channels)).cpu() for images in batches]
        self._features[split] = torch.cat(rows)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment on the device, in training only; Lightning calls it after the copy to it."""
        images, labels = batch
        if images.ndim == 2:  # cached features
            return images, labels
        images = convert_channels(images, self.channels)
        if self.trainer is None or not self.trainer.training:
            return images, labels
        images = device_part(self.augment)(images)
        if self.mixup or self.cutmix:
            mix = build_mixing(self.mixup, self.cutmix, len(self.classes))
            images, labels = mix(images.float(), labels)
        return images, labels
