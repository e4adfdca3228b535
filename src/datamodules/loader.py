"""Batches of images: what is stored, in which order it is read, and the loader that reads it.

A batch is taken from its set by one indexing operation, unless a transform works per image.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ..errors import UserError
from .compose import loader_part
from .transforms import PerImage

if TYPE_CHECKING:
    from .base import ImageDataModule

SEED_MASK = 0x7FFFFFFFFFFFFFFF  # torch takes seeds of 63 bits


class ImageSource(Protocol):
    """What gives batches of images; a uint8 tensor (N, C, H, W) does, and so do decoded files."""

    def index_select(self, dim: int, index: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(eq=False)
class LabelledImages(Dataset):
    """Images with labels, indexed by a whole batch at once."""

    images: ImageSource
    labels: torch.Tensor  # int64 (N,)
    per_image: PerImage | None = None
    seed: int = 0  # with epoch and index it fixes the draws of `per_image` for any `num_workers`

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, batch: tuple[int, torch.Tensor]) -> Any:
        """(epoch, indices (B,)) -> uint8 images (B, C, H, W), int64 labels (B,)."""
        return pass_on(self._read, *batch)

    def _read(self, epoch: int, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = self.images.index_select(0, index)
        if self.per_image is not None:
            seeds = [hash((self.seed, epoch, i)) for i in index.tolist()]
            images = self.per_image(images, seeds)
        return images, self.labels.index_select(0, index)


def pass_on(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function and return its `UserError`: a worker would raise it as a RuntimeError."""
    try:
        return function(*args)
    except UserError as error:
        return error


def raised(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches of a DataLoader; an error that `pass_on` has returned is raised."""
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


@dataclass(eq=False)
class BatchOrder(SequentialSampler):
    """Yields (epoch, indices) for each batch.

    The order depends on the seed and the epoch alone, so a resumed run repeats it. Several
    processes divide each global batch of `batch_size * world_size` images. If it is `even`, the
    order is filled up from its start; else every image is visited exactly once. (It is a
    SequentialSampler so that Lightning's `overfit_batches` leaves it in place.)
    """

    indices: torch.Tensor  # positions in the data set that belong to this split
    batch_size: int  # of each process
    shuffle: bool = False
    weights: torch.Tensor | None = None  # of `indices` in draws with replacement; None: no draws
    drop_last: bool = False
    even: bool = False  # give every process the same number of images, for equally many steps
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"  # where the images are
    epoch: int = 0
    start: int = 0  # first batch to yield: above 0 only after resuming within an epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.indices) // (self.batch_size * self.world_size)
        own = len(self.indices) if self.even else len(self.indices) - self.rank
        return math.ceil(own / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Any]:
        """(epoch, indices (B,)) for each batch."""
        seed = hash((self.seed, self.epoch)) & SEED_MASK
        generator = torch.Generator().manual_seed(seed)
        order = self.indices
        if self.weights is not None:
            order = order[torch.multinomial(self.weights, len(order), True, generator=generator)]
        elif self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        missing = -len(order) % self.world_size
        if self.even and missing:
            order = torch.cat([order, order[:missing]])
        own = order[self.rank :: self.world_size].to(self.device)  # once per epoch
        start, self.start = self.start, 0
        for batch in own.split(self.batch_size)[start : len(self)]:
            yield self.epoch, batch


class BatchLoader(DataLoader):
    """A DataLoader over `LabelledImages` that can stop and resume between any two batches.

    Lightning stores `state_dict()` in every checkpoint and passes it back on resume.
    """

    def __init__(
        self, dataset: LabelledImages, order: BatchOrder, num_workers: int = 0, pin: bool = False
    ):
        super().__init__(
            dataset,
            sampler=order,
            batch_size=None,  # the items of the sampler are batches already
            num_workers=num_workers,
            pin_memory=pin,
            persistent_workers=num_workers > 0,
            # Its own generator: the start of an epoch draws nothing from the global one, which a
            # resumed run would draw twice.
            generator=torch.Generator().manual_seed(order.seed & SEED_MASK),
        )
        self.order = order
        self._done = 0

    def __iter__(self) -> Any:
        self._done = self.order.start
        for batch in raised(super().__iter__()):
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed out in this epoch; 0 at its end."""
        return {"batches_done": self._done % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch after the batches already done."""
        self.order.start = state["batches_done"]


def build_loader(
    data: "ImageDataModule",
    images: ImageSource,
    labels: torch.Tensor,
    indices: torch.Tensor,
    training: bool,
) -> BatchLoader:
    """The loader of `images` and `labels` at `indices`, with the settings and trainer of `data`.

    In `training` it shuffles, augments, and gives every process the same number of steps.

    Raises:
        UserError: too few images for a batch in every process.
    """
    order = _build_order(data, labels, indices, training)
    if len(indices) < order.world_size or len(order) == 0:
        raise UserError(
            f"{len(indices)} images for {order.world_size} processes are too few "
            f"(data.batch_size={order.batch_size}, data.drop_last={order.drop_last}).",
            "Use fewer trainer.devices, data.drop_last=false or a larger data.val_size.",
        )
    per_image = loader_part(data.augment) if training else None
    dataset = LabelledImages(images, labels, per_image, order.seed)
    if labels.device.type != "cpu":
        return BatchLoader(dataset, order)
    pin = data.pin_memory
    if pin is None:
        pin = data.trainer is not None and data.trainer.strategy.root_device.type == "cuda"
    in_memory = isinstance(images, torch.Tensor) and per_image is None
    return BatchLoader(dataset, order, worker_count(data.num_workers, in_memory), pin)


def _build_order(
    data: "ImageDataModule", labels: torch.Tensor, indices: torch.Tensor, training: bool
) -> BatchOrder:
    """The order of `build_loader`."""
    order = BatchOrder(
        indices,
        data.batch_size if training else data.eval_batch_size,
        shuffle=training,
        drop_last=training and data.drop_last,
        even=training,
        seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),  # set by lightning.seed_everything
        device=labels.device,
    )
    trainer = data.trainer
    if trainer is not None:
        order.rank, order.world_size = trainer.global_rank, trainer.world_size
        order.shuffle = training and trainer.overfit_batches == 0  # else the same in each epoch
    if order.shuffle and data.balance == "sampler":
        own_labels = labels.cpu()[indices]
        order.weights = inverse_frequency(own_labels, len(data.classes))[own_labels]
    return order


def worker_count(num_workers: int | None, quick: bool) -> int:
    """Loader processes: as set, else none where reading is `quick`, else one per CPU core."""
    if num_workers is not None:
        return num_workers
    return 0 if quick else min(torch.get_num_threads(), 8)  # threads of this process among several


def move_to_device(sets: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Images and labels of all splits on a device; splits may share theirs."""
    moved = {id(loaded): tuple(part.to(device) for part in loaded) for loaded in sets.values()}
    return {split: moved[id(loaded)] for split, loaded in sets.items()}


def inverse_frequency(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Weight of each class, inverse to its frequency: float (num_classes,), mean 1 over the images.

    This is scikit-learn's `class_weight="balanced"`. A class without images gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    weights = len(labels) / (num_classes * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 0.0)
