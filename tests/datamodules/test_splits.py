"""Division of images: exact sizes, strata, and the sizes that are refused."""

import pytest
import torch

from src.datamodules.splits import hold_out, k_fold, shuffle
from src.errors import UserError

LABELS = torch.arange(100) % 4


def test_hold_out_is_stratified_and_repeats():
    remaining, held_out = hold_out(LABELS, "data.val_size", 0.2, 3)
    assert sorted(torch.cat([remaining, held_out]).tolist()) == list(range(100))
    assert torch.bincount(LABELS[held_out]).tolist() == [5] * 4
    assert torch.equal(held_out, hold_out(LABELS, "data.val_size", 20, 3)[1])
    assert not torch.equal(held_out, hold_out(LABELS, "data.val_size", 20, 4)[1])


def test_folds_need_enough_images_of_each_class():
    others, own = k_fold(LABELS, 5, 0, 0)
    assert len(own) == 20 and len(others) == 80
    with pytest.raises(UserError, match="num_folds=30"):
        k_fold(LABELS, 30, 0, 0)


def test_shuffle_is_a_permutation_that_repeats():
    order = shuffle(torch.arange(100), 1)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, shuffle(torch.arange(100), 1))
