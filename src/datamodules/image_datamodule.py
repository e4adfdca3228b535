"""The base class of all data sets: splits, batches, augmentation on the device. A data set adds its facts and how it is read.

To add one: subclass `ImageDataModule` as `digits.py` does, and write a YAML beside `conf/data/digits.yaml`.
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
from torch.nn import functional as F

from src.datamodules.augment import PerImage
from src.datamodules.batches import BatchLoader, BatchOrder, LabelledImages, Pictures, inverse_frequency
from src.datamodules.splits import check_share, hold_out, k_fold, mixed
from src.errors import UserError

Loaded = tuple[Pictures, torch.Tensor]


class ImageDataModule(L.LightningDataModule):
    """Pictures with labels, as uint8 batches (N, C, H, W) and int64 (N,).

    Facts, set by the subclass: `classes`, `channels`, `native_size`, `mean` and `std` (of pixel values scaled to 0..1).
    What a subclass writes: `load(split)`, and `prepare_data()` where there is something to download.

    Args:
        root: folder that holds the data, or where it is downloaded to.
        image_size: height and width that pictures are resized to, in pixels; None keeps the data set's own.
        channels: 1 or 3 to show the pictures as grey or RGB; None keeps the data set's own.
        batch_size: training pictures a step and process.
        eval_batch_size: pictures a validation and test step; None is `batch_size`, but at least 64.
        num_workers: loader processes; None is none for what lies in memory, else one a CPU core and at most 8.
        pin_memory: page-locked batches, for quicker copies to a GPU; None where the trainer uses one.
        drop_last: leave out a last training batch that is not full.
        device_resident: keep the whole data set in the device's memory.
        val_size: share (below 1) or number of training pictures kept for validation, stratified by class.
        split_seed: fixes which ones, whatever the run's seed.
        num_folds: None, or the number of folds of a stratified k-fold split that takes the place of `val_size`.
        fold: which fold validates, from 0.
        augment: a batch transform such as `CropFlip`, a `PerImage` transform, or None. Training only.
        mixup, cutmix: alpha of MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019), 0 for none; with both, each batch gets one
            of them by chance. Training labels become shares of the classes, (N, num_classes).
        balance: `none`; `sampler` draws every class equally often; `loss` weighs rare classes more.
        mean, std: normalisation by channel other than the data set's own.

    Raises:
        UserError: a value that cannot work, or data that are missing or damaged.
    """

    classes: list[str]
    channels: int = 3
    native_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        root: str | os.PathLike = "data",
        image_size: int | None = None,
        channels: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool | None = None,
        drop_last: bool = False,
        device_resident: bool = False,
        val_size: float = 0.1,
        split_seed: int = 0,
        num_folds: int | None = None,
        fold: int = 0,
        augment: Callable[[torch.Tensor], torch.Tensor] | PerImage | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        balance: str = "none",
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ):
        super().__init__()
        self.root = Path(root)
        self.image_size = self.native_size if image_size is None else image_size
        self.batch_size = batch_size
        self.eval_batch_size = max(batch_size, 64) if eval_batch_size is None else eval_batch_size
        self.num_workers, self.pin_memory, self.drop_last = num_workers, pin_memory, drop_last
        self.device_resident = device_resident
        self.val_size, self.split_seed, self.num_folds, self.fold = val_size, split_seed, num_folds, fold
        self.augment = augment or None  # an empty YAML comes as {}
        self.mixup, self.cutmix = mixup, cutmix
        self.balance = balance
        own_channels, self.channels = self.channels, self.channels if channels is None else channels
        self._check_choices()
        if self.channels != own_channels and {own_channels, self.channels} != {1, 3}:
            raise UserError(
                f"data.channels={self.channels} cannot be shown from pictures of {own_channels}.",
                "Choose 1 for grey, 3 for RGB, or null for the data set's own.",
            )
        self.mean = _by_channel("data.mean", self.mean if mean is None else mean, own_channels, self.channels)
        self.std = _by_channel("data.std", self.std if std is None else std, own_channels, self.channels)
        if min(self.std) <= 0:
            raise UserError(f"data.std={list(self.std)} cannot be divided by.", "Give data.std numbers above 0.")
        self._sets: dict[str, Loaded] = {}
        self._indices: dict[str, torch.Tensor] = {}
        self._features: dict[str, torch.Tensor] = {}
        self._mix: Callable | None = None
        self._numbers: torch.Tensor | None = None  # of the classes, where `relabel` was asked for others

    def _check_choices(self) -> None:
        for name in ("batch_size", "eval_batch_size", "image_size"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name}={getattr(self, name)} is less than 1.", f"Give data.{name} a whole number above 0.")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"data.{name}={getattr(self, name)} is no alpha.", f"Give data.{name} an alpha above 0, or 0 for none.")
        if self.num_workers is not None and self.num_workers < 0:
            raise UserError(f"data.num_workers={self.num_workers} is less than 0.", "Choose 0 for none, or null.")
        check_share("data.val_size", self.val_size)
        if self.balance not in ("none", "sampler", "loss"):
            raise UserError(f"data.balance={self.balance!r} is not known.", "Choose none, sampler or loss.")
        if self.num_folds is not None and not (self.num_folds >= 2 and 0 <= self.fold < self.num_folds):
            raise UserError(
                f"data.fold={self.fold} with data.num_folds={self.num_folds} is no fold.",
                "Take num_folds of at least 2 and fold from 0 to num_folds - 1.",
            )

    # What a data set provides -----------------------------------------------------------------------------------------

    def load(self, split: str) -> Loaded | None:
        """Read one split: `train`, `val` or `test`.

        Returns:
            uint8 images (N, C, H, W) (or an object that gives such batches by `index_select`) and int64 labels (N,); None where the
            data set has no such split: validation is then carved from `train`, and nothing is tested.
        """
        raise NotImplementedError

    @property
    def has_test(self) -> bool:
        """Whether there is a test split. Reads it, unless a data set knows better."""
        self.setup("test")
        return "test" in self._sets

    # Splits -----------------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once. Lightning calls it on every process."""
        if stage in (None, "fit", "validate") and "train" not in self._sets:
            train = self._read("train")
            if train is None:
                raise UserError(f"{type(self).__name__}.load('train') gives no pictures.", "Only `val` and `test` may be None.")
            self._sets["train"] = train
            own_val = self._read("val")
            self._indices["train"], self._indices["val"] = self._split(self._sets["train"][1], own_val)
            self._sets["val"] = own_val or self._sets["train"]
        if stage in (None, "test") and "test" not in self._sets and (test := self._read("test")) is not None:
            self._sets["test"] = test
            self._indices["test"] = torch.arange(len(test[1]))
        processes = self.trainer.world_size if self.trainer is not None else 1
        for split, indices in self._indices.items():
            if len(indices) < processes:  # one with nothing to do would leave the others waiting
                raise UserError(
                    f"{processes} processes cannot share the {len(indices)} pictures of the {split} split.",
                    "Use fewer trainer.devices" + (", or a larger data.val_size." if split == "val" else "."),
                )

    def _read(self, split: str) -> Loaded | None:
        loaded = self.load(split)
        if loaded is None:
            return None
        images, labels = loaded
        if len(labels) == 0:
            raise UserError(f"The {split} split of {self.root} holds no pictures.", "Check data.root.")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise UserError(
                f"The {split} labels run from {int(labels.min())} to {int(labels.max())}, but there are {len(self.classes)} classes.",
                "Make the class names and the labels agree.",
            )
        if self._numbers is not None:
            labels = self._numbers[labels]
        if isinstance(images, torch.Tensor):
            if len(images) != len(labels):
                raise UserError(f"The {split} split has {len(images)} pictures but {len(labels)} labels.", "Get the files again.")
            if images.shape[-2:] != (self.image_size, self.image_size):
                images = resize(images, self.image_size)
            if self.device_resident and self.trainer is not None:
                images, labels = images.to(self._device), labels.to(self._device)
        elif self.device_resident:
            raise UserError("data.device_resident=true needs pictures that fit into memory.", "Set data.device_resident=false.")
        return images, labels

    def _split(self, labels: torch.Tensor, own_val: Loaded | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of train and of validation."""
        if own_val is not None and self.num_folds is not None:
            raise UserError(
                f"data.num_folds={self.num_folds}, but these data have a validation split of their own.",
                "Leave data.num_folds out, or take the validation split away.",
            )
        if own_val is not None:
            parts = torch.arange(len(labels)), torch.arange(len(own_val[1]))
        elif self.num_folds is not None:
            parts = k_fold(labels, self.num_folds, self.fold, self.split_seed)
        else:
            parts = hold_out(labels, "data.val_size", self.val_size, self.split_seed)
        return mixed(parts[0], self.split_seed), mixed(parts[1], self.split_seed)

    def split_hash(self) -> str:
        """Names the exact train and validation pictures: equal for equal splits of equal data, whatever the run's seed."""
        self.setup("fit")
        digest = hashlib.sha256()
        for split in ("train", "val"):
            digest.update(self._indices[split].numpy().tobytes())
            digest.update(self._sets[split][1].cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        """Names the training data themselves: equal for equal pictures and labels in equal order."""
        self.setup("fit")
        images, labels = self._sets["train"]
        digest = hashlib.blake2b(labels.cpu().numpy().tobytes(), digest_size=8)
        if isinstance(images, torch.Tensor):
            digest.update(images.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def sizes(self) -> dict[str, int]:
        """Pictures in each split that has been set up."""
        return {split: len(indices) for split, indices in self._indices.items()}

    def labels(self, split: str) -> torch.Tensor:
        """int64 (N,) labels of `train`, `val` or `test`, in the order of its evaluation."""
        indices = self._indices[split]
        return self._sets[split][1].cpu().index_select(0, indices)

    def images(self, split: str, positions: torch.Tensor) -> torch.Tensor:
        """uint8 (len(positions), C, H, W): pictures of a split as its evaluation shows them, by their position in it."""
        index = self._indices[split][positions]
        images = self._sets[split][0]
        if isinstance(images, torch.Tensor):
            index = index.to(images.device)
        return self._show(images.index_select(0, index).cpu())

    def names(self, split: str, positions: torch.Tensor) -> list[str]:
        """What pictures of a split are called, by their position in it: the file where they are files, else their number in the data."""
        return [str(i) for i in self._indices[split][positions].tolist()]

    def relabel(self, classes: Sequence[str]) -> None:
        """Number the labels as `classes` does, by name, for a network that knows the classes in another order or knows more. Before setup.

        Raises:
            UserError: a class that is not among them.
        """
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise UserError(
                f"The network does not know {len(unknown)} of the classes of these data: {_some(unknown)}.",
                f"Leave them out, or call the classes as the network does: {_some(classes)}.",
            )
        if list(classes) != list(self.classes):
            self._numbers = torch.tensor([list(classes).index(name) for name in self.classes])

    @property
    def class_weights(self) -> torch.Tensor | None:
        """float (num_classes,) for the loss where `balance` is `loss`, else None."""
        if self.balance != "loss":
            return None
        return inverse_frequency(self.labels("train"), len(self.classes))

    # Batches ----------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train")

    def val_dataloader(self) -> BatchLoader:
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        if not self.has_test:
            raise UserError(f"{self.root} has no test split.", "Evaluate its validation split with split=val.")
        return self._loader("test")

    def keep_features(self, split: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """From now on, hand out in place of a split's pictures what `function` makes of them, computed here once.

        Args:
            split: `train` or `val`.
            function: uint8 (B, C, H, W) on the trainer's device -> (B, features); called with the batches of an evaluation.
        """
        loader = self._loader(split, training=False)
        rows = [function(self._show(images.to(self._device))).cpu() for images, _ in loader]
        self._features[split] = torch.cat(rows)

    def _loader(self, split: str, training: bool | None = None) -> BatchLoader:
        self.setup("test" if split == "test" else "fit")
        if training is None:
            training = split == "train"
        images, labels = self._sets[split]
        indices = self._indices[split]
        if split in self._features:
            images, labels = self._features[split], self.labels(split)
            indices = torch.arange(len(labels))
        trainer = self.trainer
        overfit = training and trainer is not None and trainer.overfit_batches > 0
        weights = None
        if training and self.balance == "sampler" and not overfit:
            weights = inverse_frequency(self.labels("train"), len(self.classes))[self.labels("train")]
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # what lightning.seed_everything was given
        order = BatchOrder(
            indices,
            self.batch_size if training else self.eval_batch_size,
            shuffle=training and not overfit,
            weights=weights,
            drop_last=training and self.drop_last,
            even=training,
            seed=seed,
            rank=trainer.global_rank if trainer is not None else 0,
            world_size=trainer.world_size if trainer is not None else 1,
            device=labels.device,
        )
        if len(order) == 0:
            raise UserError(
                f"data.drop_last=true leaves nothing of {len(indices)} pictures at data.batch_size={self.batch_size}.",
                "Use a smaller data.batch_size or data.drop_last=false.",
            )
        per_image = self.augment if training and isinstance(self.augment, PerImage) else None
        workers = self.num_workers
        if labels.device.type != "cpu":
            if per_image is not None:
                raise UserError(
                    "data.device_resident=true keeps the pictures where a transform that works image by image cannot reach them.",
                    "Choose another data/augment, or data.device_resident=false.",
                )
            workers = 0
        elif workers is None:
            in_memory = isinstance(images, torch.Tensor) and per_image is None
            workers = 0 if in_memory else min(torch.get_num_threads(), 8)  # this process's share of the cores
        pin = self.pin_memory
        if pin is None:
            pin = self._device.type == "cuda"
        return BatchLoader(LabelledImages(images, labels, per_image, seed), order, workers, bool(pin) and labels.device.type == "cpu")

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def on_after_batch_transfer(self, batch, dataloader_idx: int):
        """Augment on the device, in training only. Lightning calls it behind the copy to the device."""
        images, labels = batch
        if images.ndim == 2:  # kept features
            return images, labels
        images = self._show(images)
        if self.trainer is None or not self.trainer.training:
            return images, labels
        if self.augment is not None and not isinstance(self.augment, PerImage):
            images = self.augment(images)
        return self._mixed_batch(images, labels) if self.mixup or self.cutmix else (images, labels)

    def _mixed_batch(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """MixUp or CutMix of a batch: float pictures on the scale of 0 to 255, and shares of the classes (N, num_classes)."""
        if self._mix is None:
            from torchvision.transforms import v2  # 1 s to import: only where it is needed

            kinds = [(v2.MixUp, self.mixup), (v2.CutMix, self.cutmix)]
            chosen = [kind(alpha=float(alpha), num_classes=len(self.classes)) for kind, alpha in kinds if alpha]
            self._mix = v2.RandomChoice(chosen)
        return self._mix(images.float(), labels)

    def augmented(self, positions: torch.Tensor) -> torch.Tensor:
        """uint8 (len(positions), C, H, W): training pictures, by their position in the split, as augmented before MixUp and CutMix.

        Where the augmentation draws from the global random state, so does this.
        """
        index = self._indices["train"][positions]
        images = self._sets["train"][0]
        if isinstance(images, torch.Tensor):
            index = index.to(images.device)
        images = images.index_select(0, index).cpu()
        if isinstance(self.augment, PerImage):
            return self._show(self.augment(images, index.tolist()))
        images = self._show(images)
        return self.augment(images) if self.augment is not None else images

    def _show(self, images: torch.Tensor) -> torch.Tensor:
        """Grey pictures as RGB, or the other way, where `channels` asks for it."""
        if images.shape[1] == self.channels:
            return images
        if images.shape[1] == 1:
            return images.expand(-1, self.channels, -1, -1)
        red, green, blue = images.float().unbind(1)  # ITU-R 601 luma, as Pillow and torchvision convert
        return (0.299 * red + 0.587 * green + 0.114 * blue).round().to(torch.uint8)[:, None]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, C, H, W) -> uint8 (N, C, size, size), bilinear with antialiasing, some thousand pictures at a time."""
    out = [
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
        for part in images.split(4096)
    ]
    return torch.cat(out)


def _some(names: Sequence[str]) -> str:
    """Names in a line, the first twenty of them."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _by_channel(name: str, values, own: int, wanted: int) -> tuple[float, ...]:
    """A tuple with one value a channel; a data set's own grey values are repeated for RGB, RGB ones averaged for grey."""
    values = tuple(float(v) for v in values)
    if len(values) == wanted:
        return values
    if len(values) == own and {own, wanted} == {1, 3}:
        return values * 3 if own == 1 else (sum(values) / 3,)
    raise UserError(f"{name} has {len(values)} values for {wanted} channels.", f"Give {name} one value a channel.")
