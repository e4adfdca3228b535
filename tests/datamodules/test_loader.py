"""Batches: equal to a plain DataLoader, in orders that repeat, shared exactly by processes."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from src.datamodules.loader import BatchLoader, BatchOrder, LabelledImages, inverse_frequency
from src.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (97, 3, 8, 8), dtype=torch.uint8, generator=GENERATOR)
LABELS = torch.arange(97)


def visited(order: BatchOrder) -> list[int]:
    return [i for _, batch in order for i in batch.tolist()]


def test_batches_equal_those_of_a_plain_dataloader():
    order = BatchOrder(torch.arange(97), 16)
    own = list(BatchLoader(LabelledImages(IMAGES, LABELS), order))
    plain = list(DataLoader(TensorDataset(IMAGES, LABELS), 16))
    assert len(own) == len(plain) == len(order) == 7
    for (own_images, own_labels), (images, labels) in zip(own, plain, strict=True):
        assert torch.equal(own_images, images) and torch.equal(own_labels, labels)


def test_order_depends_on_seed_and_epoch_alone():
    order = BatchOrder(torch.arange(97), 16, shuffle=True, seed=0)
    first, again = visited(order), visited(order)
    order.set_epoch(1)
    assert first == again != visited(order)
    assert sorted(first) == list(range(97))
    assert visited(BatchOrder(torch.arange(97), 16, shuffle=True, seed=1)) != first


def test_the_order_is_that_of_earlier_versions():
    order = BatchOrder(torch.arange(97), 16, shuffle=True, seed=5)
    order.set_epoch(2)
    assert visited(order)[:8] == [85, 83, 40, 93, 28, 7, 59, 49]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_visit_every_image_exactly_once_in_evaluation(world):
    orders = [BatchOrder(torch.arange(97), 10, rank=k, world_size=world) for k in range(world)]
    assert sorted(sum((visited(order) for order in orders), [])) == list(range(97))


def test_processes_take_equally_many_training_steps_and_divide_the_global_batch():
    orders = [
        BatchOrder(torch.arange(97), 10, shuffle=True, even=True, rank=rank, world_size=2)
        for rank in range(2)
    ]
    halves = [[batch.tolist() for _, batch in order] for order in orders]
    assert len(orders[0]) == len(orders[1]) == len(halves[0]) == len(halves[1])
    single = [batch.tolist() for _, batch in BatchOrder(torch.arange(97), 20, shuffle=True)]
    assert sorted(halves[0][0] + halves[1][0]) == sorted(single[0])


def test_a_loader_resumes_after_the_batches_already_done():
    def loader():
        order = BatchOrder(torch.arange(97), 16, shuffle=True)
        return BatchLoader(LabelledImages(IMAGES, LABELS), order)

    whole = [labels.tolist() for _, labels in loader()]
    interrupted = loader()
    iterator = iter(interrupted)
    next(iterator)
    next(iterator)
    resumed = loader()
    resumed.load_state_dict(interrupted.state_dict())
    assert [labels.tolist() for _, labels in resumed] == whole[2:]
    assert [labels.tolist() for _, labels in resumed] == whole  # the next epoch is complete


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_source_keep_their_type_in_workers(workers):
    class Broken:
        def index_select(self, dim, index):
            raise UserError("a.jpg is broken.", "Remove it.")

    dataset = LabelledImages(Broken(), LABELS)
    loader = BatchLoader(dataset, BatchOrder(torch.arange(97), 16), num_workers=workers)
    with pytest.raises(UserError, match="a.jpg") as caught:
        list(loader)
    assert caught.value.remedy == "Remove it."


def test_inverse_frequency_gives_no_weight_to_missing_classes():
    weights = inverse_frequency(torch.tensor([0, 0, 0, 2]), 3)
    assert weights.tolist() == pytest.approx([4 / 9, 0, 4 / 3])
