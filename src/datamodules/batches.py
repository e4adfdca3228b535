"""From a set of pictures to whole batches: what is stored, in which order it is read, and the loader that does it.

A batch is cut from its set in one indexing operation, never picture by picture, unless a per-image transform asks for it.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler, get_worker_info

from src.datamodules.augment import PerImage
from src.errors import UserError


class Pictures(Protocol):
    """What a set of pictures must be able to do; a uint8 tensor (N, C, H, W) already can."""

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor: ...


class LabelledImages(Dataset):
    """Pictures and labels, indexed by a whole batch at once.

    Args:
        images: uint8 (N, C, H, W), or an object with `index_select` that gives such batches.
        labels: int64 (N,).
        per_image: a transform applied to each picture on its own, or None.
        seed: with the epoch and the picture's index it fixes what `per_image` draws, whatever the number of workers.
    """

    def __init__(self, images: Pictures, labels: torch.Tensor, per_image: PerImage | None = None, seed: int = 0):
        self.images, self.labels, self.per_image, self.seed = images, labels, per_image, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, batch: tuple[int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor] | UserError:
        """(epoch, indices (B,)) -> uint8 images (B, C, H, W), int64 labels (B,)."""
        epoch, index = batch
        try:
            images = self.images.index_select(0, index)
        except UserError as error:
            if get_worker_info() is None:
                raise
            return error  # torch would wrap it into the text of another error; BatchLoader raises it
        if self.per_image is not None:
            images = self.per_image(images, [hash((self.seed, epoch, i)) for i in index.tolist()])
        return images, self.labels.index_select(0, index)


class BatchOrder(SequentialSampler):
    """Yields (epoch, indices) a batch; the order depends on the seed and the epoch alone, so a resumed run repeats it.

    Several processes share each global batch of `batch_size * world_size` pictures. In training the order is filled up from
    its start so that every process takes the same number of steps; elsewhere every picture is visited exactly once.
    (It is a SequentialSampler so that Lightning's `overfit_batches` leaves it alone: `shuffle=False` is all that it needs.)

    Args:
        indices: positions in the data set that belong to this split.
        batch_size: pictures a batch and process.
        shuffle: a new order each epoch.
        weights: chances of each of `indices` to be drawn, with replacement (balanced sampling); None visits each one once.
        drop_last: leave out a last batch that is not full.
        even: fill up the last batch for several processes.
        seed, rank, world_size: as in `torch.utils.data.DistributedSampler`.
        device: where the indices are wanted; with the data on a GPU they are moved there once an epoch.
    """

    def __init__(
        self,
        indices: torch.Tensor,
        batch_size: int,
        shuffle: bool = False,
        weights: torch.Tensor | None = None,
        drop_last: bool = False,
        even: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.indices, self.batch_size, self.shuffle, self.weights, self.drop_last = (
            indices,
            batch_size,
            shuffle,
            weights,
            drop_last,
        )
        self.even, self.seed, self.rank, self.world_size, self.device = even, seed, rank, world_size, device
        self.epoch = 0
        self.start = 0  # first batch to yield: not 0 once, after a resume in the middle of an epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.indices) // (self.batch_size * self.world_size)
        mine = len(self.indices) if self.even else len(self.indices) - self.rank
        return math.ceil(mine / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[Any]:
        """(epoch, indices (B,)) a batch."""
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) & 0x7FFFFFFFFFFFFFFF)
        order = self.indices
        if self.weights is not None:
            order = order[torch.multinomial(self.weights, len(order), replacement=True, generator=generator)]
        elif self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        if self.even and (missing := -len(order) % self.world_size):
            order = torch.cat([order, order[:missing]])
        batches = order[self.rank :: self.world_size].to(self.device).split(self.batch_size)
        start, self.start = self.start, 0
        for batch in batches[start : len(self)]:
            yield self.epoch, batch


class BatchLoader(DataLoader):
    """A DataLoader over `LabelledImages` that can be stopped and resumed between any two batches.

    Lightning stores `state_dict()` in every checkpoint and gives it back on resume.
    """

    def __init__(self, dataset: LabelledImages, order: BatchOrder, num_workers: int = 0, pin_memory: bool = False):
        super().__init__(
            dataset,
            sampler=order,
            batch_size=None,  # the sampler's items are batches already
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # A generator of its own: starting an epoch draws nothing from the global one, so resuming repeats its numbers.
            generator=torch.Generator().manual_seed(order.seed & 0x7FFFFFFFFFFFFFFF),
        )
        self.order = order
        self._done = 0

    def __iter__(self) -> Any:
        self._done = self.order.start
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed out in this epoch; 0 at its end."""
        return {"batches_done": self._done % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch behind the batches already done."""
        self.order.start = state["batches_done"]


def inverse_frequency(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Weight of each class, inverse to how often it occurs: (num_classes,), with a mean of 1 over the pictures.

    scikit-learn calls it `class_weight='balanced'`. A class without pictures gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    return torch.where(counts > 0, len(labels) / (num_classes * counts.clamp(min=1)), 0.0)
