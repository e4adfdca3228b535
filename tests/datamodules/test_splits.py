"""Division of images: exact sizes, strata, and the sizes that are refused."""

import pytest
import torch

from src.datamodules.splits import hold_out, k_fold, shuffle
from src.errors import UserError

LABELS = torch.arange(100) % 4
NAMES = dict(enumerate("abcd"))
FEW_CATS = torch.tensor([1] * 3 + [0] * 200)  # 200 dogs and 3 cats
PETS = {0: "dog", 1: "cat"}


def test_hold_out_is_stratified_and_repeats():
    remaining, held_out = hold_out(LABELS, "data.val_size", 0.2, 3, NAMES)
    assert sorted(torch.cat([remaining, held_out]).tolist()) == list(range(100))
    assert torch.bincount(LABELS[held_out]).tolist() == [5] * 4
    assert torch.equal(held_out, hold_out(LABELS, "data.val_size", 20, 3, NAMES)[1])
    assert not torch.equal(held_out, hold_out(LABELS, "data.val_size", 20, 4, NAMES)[1])


@pytest.mark.parametrize("size", [0.01, 0.1, 20, 2, 201])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_class_is_in_both_parts(size, seed):
    remaining, held_out = hold_out(FEW_CATS, "data.val_size", size, seed, PETS)
    assert sorted(torch.cat([remaining, held_out]).tolist()) == list(range(203))
    expected = size if size >= 1 else -(-203 * size // 1)
    assert len(held_out) == expected
    assert set(FEW_CATS[held_out].tolist()) == set(FEW_CATS[remaining].tolist()) == {0, 1}


def test_a_part_that_is_divided_again_keeps_two_of_each_class():
    for seed in range(5):
        remaining, held_out = hold_out(FEW_CATS, "data.test_size", 0.7, seed, PETS, least=3)
        assert torch.bincount(FEW_CATS[remaining])[1] == 2 and 1 in FEW_CATS[held_out]


def test_a_class_that_is_too_small_is_named_with_the_number_needed():
    labels = FEW_CATS[2:]
    with pytest.raises(UserError, match=r"data.val_size: cat \(1\).* at least 2"):
        hold_out(labels, "data.val_size", 0.1, 0, PETS)
    with pytest.raises(UserError, match=r"cat \(1\).* at least 3"):
        hold_out(labels, "data.test_size", 0.1, 0, PETS, least=3)
    with pytest.raises(UserError, match=r"data.num_folds=4: cat \(3\).* at least 4"):
        k_fold(FEW_CATS, 4, 0, 0, PETS)
    for fold in range(3):
        assert 1 in FEW_CATS[k_fold(FEW_CATS, 3, fold, 0, PETS)[1]]
    with pytest.raises(UserError) as caught:
        hold_out(LABELS, "data.val_size", 3, 0, NAMES)
    assert "from 4 to 96" in caught.value.remedy


def test_folds_need_enough_images_of_each_class():
    others, own = k_fold(LABELS, 5, 0, 0, NAMES)
    assert len(own) == 20 and len(others) == 80
    with pytest.raises(UserError, match="num_folds=30"):
        k_fold(LABELS, 30, 0, 0, NAMES)


def test_shuffle_is_a_permutation_that_repeats():
    order = shuffle(torch.arange(100), 1)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, shuffle(torch.arange(100), 1))
