"""Splits by group: no group straddles them, every class is in both parts."""

import pytest
import torch
from helpers import write_image_folder

from src.datamodules import ImageFolderDataModule
from src.datamodules.splits import hold_out, k_fold
from src.errors import UserError

NAMES = {0: "a", 1: "b"}
LABELS = torch.arange(200) % 2
GROUPS = [str(i // 4 % 25) for i in range(200)]


@pytest.mark.parametrize("size", [0.1, 0.25, 0.4, 0.7, 30])
def test_whole_groups_of_all_classes_are_held_out(size):
    rest, held = hold_out(LABELS, "data.val_size", size, 0, NAMES, groups=GROUPS)
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(200))
    assert not {GROUPS[i] for i in rest} & {GROUPS[i] for i in held}
    assert set(LABELS[held].tolist()) == {0, 1}
    wanted = size if size > 1 else 200 * size
    assert abs(len(held) - wanted) <= 16


def test_folds_are_disjoint_in_groups_and_hold_every_class():
    folds = [k_fold(LABELS, 5, fold, 0, NAMES, GROUPS) for fold in range(5)]
    assert sorted(torch.cat([held for _, held in folds]).tolist()) == list(range(200))
    for rest, held in folds:
        assert not {GROUPS[i] for i in rest} & {GROUPS[i] for i in held}
        assert set(LABELS[held].tolist()) == {0, 1}


@pytest.mark.parametrize("groups", [["one"] * 200, [str(i % 2) for i in range(200)]])
def test_groups_that_cannot_be_divided_are_refused(groups):
    with pytest.raises(UserError):
        hold_out(LABELS, "data.val_size", 0.5, 0, NAMES, groups=groups)
    with pytest.raises(UserError):
        k_fold(LABELS, 2, 0, 0, NAMES, groups)


def bursts(tmp_path, **settings):
    """Files 000 to 039 of each class, in bursts of ten: group_by takes the tens."""
    root = write_image_folder(tmp_path / "photos", {"a": 40, "b": 40}, size=8)
    return ImageFolderDataModule(root, image_size=8, cache_dir=tmp_path / "cache", **settings)


def test_a_folder_is_divided_by_a_regular_expression(tmp_path):
    data = bursts(tmp_path, group_by=r"(\d\d)\d\.jpg", val_size=0.25, test_size=0.25)
    data.setup()
    used = {
        split: {name[2:4] for name in data.names(split, torch.arange(n))}
        for split, n in data.sizes().items()
    }
    assert sum(map(len, used.values())) == 4 and data.sizes()["val"] > 0
    files = data.split_files()
    assert {path.name[:2] for path in files["val"][0]} == used["val"]
    assert data.split_hash() != bursts(tmp_path, val_size=0.25, test_size=0.25).split_hash()


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "not a regular expression"), ("b/", "40 of 80 .* a/000.jpg")]
)
def test_a_pattern_that_finds_nothing_is_refused(pattern, words, tmp_path):
    with pytest.raises(UserError, match=words):
        bursts(tmp_path, group_by=pattern).setup()
