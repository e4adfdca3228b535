"""Batches and augmentation: the fast path gives what a plain one gives, each picture has its own draw, orders repeat."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from src.datamodules import CropFlip, DigitsDataModule, PerImage
from src.datamodules.batches import BatchLoader, BatchOrder, LabelledImages

IMAGES = torch.randint(0, 256, (97, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(97)


def seen(order: BatchOrder) -> list[int]:
    return [i for _, batch in order for i in batch.tolist()]


def test_batches_equal_a_plain_dataloader_bit_for_bit():
    order = BatchOrder(torch.arange(97), 16)
    fast = list(BatchLoader(LabelledImages(IMAGES, LABELS), order))
    plain = list(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), 16))
    assert len(fast) == len(plain) == len(order) == 7
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(fast, plain, strict=True))


def test_order_depends_on_seed_and_epoch_alone():
    order = BatchOrder(torch.arange(97), 16, shuffle=True, seed=0)
    first, again = seen(order), seen(order)
    order.set_epoch(1)
    assert first == again != seen(order) and sorted(first) == list(range(97))
    assert seen(BatchOrder(torch.arange(97), 16, shuffle=True, seed=1)) != first


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_picture_exactly_once_in_evaluation(world):
    parts = [seen(BatchOrder(torch.arange(97), 10, rank=rank, world_size=world)) for rank in range(world)]
    assert sorted(sum(parts, [])) == list(range(97))


def test_processes_take_equally_many_training_steps_and_share_the_global_batch():
    orders = [BatchOrder(torch.arange(97), 10, shuffle=True, even=True, rank=rank, world_size=2) for rank in range(2)]
    assert len(orders[0]) == len(orders[1]) == len(list(orders[0])) == len(list(orders[1]))
    single = [batch.tolist() for _, batch in BatchOrder(torch.arange(97), 20, shuffle=True)]
    halves = [[batch.tolist() for _, batch in order] for order in orders]
    assert sorted(halves[0][0] + halves[1][0]) == sorted(single[0])


def test_a_loader_resumes_behind_the_batches_already_done():
    def loader():
        return BatchLoader(LabelledImages(IMAGES, LABELS), BatchOrder(torch.arange(97), 16, shuffle=True))

    whole = [labels.tolist() for _, labels in loader()]
    cut = loader()
    iterator = iter(cut)
    next(iterator), next(iterator)
    resumed = loader()
    resumed.load_state_dict(cut.state_dict())
    assert [labels.tolist() for _, labels in resumed] == whole[2:]
    assert [labels.tolist() for _, labels in resumed] == whole  # the next epoch is whole again


@pytest.mark.parametrize("padding", [2, [0, 2, 3, 4]])
def test_every_crop_is_a_window_of_the_padded_picture_with_its_own_draw(padding):
    torch.manual_seed(0)
    images = IMAGES.clone()
    left, top, right, bottom = (padding,) * 4 if isinstance(padding, int) else padding
    padded = F.pad(images, (left, right, top, bottom))
    places = set()
    for picture, out in zip(padded, CropFlip(padding)(images), strict=True):
        windows = {
            (i, j, flip): (picture[:, i : i + 8, j : j + 8].flip(2) if flip else picture[:, i : i + 8, j : j + 8])
            for i in range(top + bottom + 1)
            for j in range(left + right + 1)
            for flip in (False, True)
        }
        matches = [place for place, window in windows.items() if torch.equal(window, out)]
        assert matches
        places.update(matches)
    assert len(places) > 20


def test_cutout_is_a_black_square_and_touches_nothing_else():
    torch.manual_seed(0)
    white = torch.full((200, 1, 8, 8), 255, dtype=torch.uint8)
    out = CropFlip([1, 0, 0, 0], flip=0, cutout=4)(white)
    inner = out[:, :, :, 1:]  # the first column may be padding
    assert set(out.unique().tolist()) == {0, 255}
    assert (inner == 0).sum((1, 2, 3)).max() <= 16 and (inner == 0).any((1, 2, 3)).float().mean() > 0.9


@pytest.mark.parametrize("options", [{"padding": -1}, {"padding": [1, 2]}, {"flip": 2}, {"padding": 0, "cutout": 3}])
def test_impossible_augmentation(options):
    with pytest.raises(ValueError, match=r"padding|flip|cutout"):
        CropFlip(**options)


def test_per_image_transforms_draw_by_picture_whatever_the_workers():
    batches = []
    for workers in (0, 2):
        data = DigitsDataModule(augment=PerImage(v2.RandAugment()), num_workers=workers, image_size=16)
        state = torch.random.get_rng_state()
        batches.append(list(data.train_dataloader()))
        assert torch.equal(state, torch.random.get_rng_state())  # the global stream is left alone
    assert all(torch.equal(a[0], b[0]) for a, b in zip(*batches, strict=True))
    plain = list(DigitsDataModule(image_size=16).train_dataloader())
    changed = sum(int((a[0] != b[0]).flatten(1).any(1).sum()) for a, b in zip(batches[0], plain, strict=True))
    assert changed > 1000


def test_grey_pictures_are_shown_as_rgb_when_asked():
    data = DigitsDataModule(channels=3, image_size=16)
    data.setup("fit")
    assert data.images("val", torch.arange(4)).shape == (4, 3, 16, 16) and len(data.mean) == 3
