"""Tables of labels: what people's CSV files look like, and what is refused."""

import pytest
import torch
from image_files import make_image

from src.datamodules import ImageCSVDataModule
from src.datamodules.scan import scan
from src.errors import UserError


@pytest.fixture
def root(tmp_path):
    for i in range(12):
        folder = tmp_path / "photos" / "sub"
        folder.mkdir(parents=True, exist_ok=True)
        make_image(i).save(folder / f"{i}.png")
    return tmp_path / "photos"


def table(root, lines, **settings):
    path = root.parent / "labels.csv"
    text = lines if isinstance(lines, bytes) else "\n".join(lines).encode()
    path.write_bytes(text)
    cache = root.parent / "cache"
    data = ImageCSVDataModule(root, csv=path, image_size=8, cache_dir=cache, **settings)
    data.setup()
    return data


LINES = [f"sub/{i}.png,{'dog' if i % 2 else 'cat'}" for i in range(12)]


def test_usual_columns_and_every_image_in_a_split(root):
    data = table(root, ["filename,label", *LINES], val_size=4)
    assert data.classes == ["cat", "dog"] and data.sizes() == {"train": 8, "val": 4}
    for split, n in data.sizes().items():
        for name, label in zip(data.names(split, torch.arange(n)), data.labels(split), strict=True):
            assert int(name[4:-4]) % 2 == label
    assert scan(data).problems == []


def test_excel_windows_paths_splits_groups_and_numbers(root):
    splits = ["Training"] * 8 + ["TEST"] * 4
    rows = [f"sub\\{i}.png;{10 - i % 2};{split};{i // 2}" for i, split in enumerate(splits)]
    text = "\r\n".join(["File;Class;Split;Patient", *rows, "", ""])
    data = table(root, b"\xef\xbb\xbf" + text.encode(), group_by="Patient", val_size=0.25)
    assert data.classes == ["9", "10"] and data.has_test
    assert data.sizes() == {"train": 6, "val": 2, "test": 4}
    places = data.names("val", torch.arange(2))
    assert {int(name[4:-4]) // 2 for name in places} == {int(places[0][4:-4]) // 2}


def test_labels_are_a_part_of_the_fingerprint(root):
    other = [LINES[0].replace("cat", "dog"), *LINES[1:]]
    prints = [table(root, ["file,label", *lines]).fingerprint() for lines in (LINES, other)]
    assert prints[0] != prints[1]


def test_missing_files_may_be_skipped(root):
    data = table(root, ["file,label", *LINES, "gone.png,cat"], bad_files="skip", val_size=4)
    assert data.sizes() == {"train": 8, "val": 4}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([*LINES], "Row 1 of .*labels.csv names the columns sub/0.png, cat"),
        (["file,label", *LINES, "sub/99.png,cat"], "Row 14 .* no file .*99.png"),
        (["file,label", "sub/0.png,", *LINES[1:]], "Row 2 .* empty cell"),
        (["file,label", *LINES, "sub/0.png,dog"], "Row 14 .*says dog.*row 2 cat"),
        (["file,label", *LINES, "../labels.csv,dog"], "Row 14 .*outside of data.root"),
        (["file,label", *LINES, "/etc/hostname,dog"], "Row 14 .*outside of data.root"),
        (["file,label,split", *[f"{line},later" for line in LINES]], "Row 2 .* split later"),
        (["file,label", *[line.replace("dog", "cat") for line in LINES]], "one label only"),
        ([], "cannot be read as a table"),
        (b"\xff\xfef\x00i\x00", "cannot be read as a table"),
        (["file,label", *LINES, "sub/0.png,dog,3,4"], "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_names_its_row(lines, words, root):
    with pytest.raises(UserError, match=words) as caught:
        table(root, lines)
    assert caught.value.remedy


def test_columns_are_named_and_unknown_ones_are_refused(root):
    lines = ["photo,species", *LINES]
    assert table(root, lines, image_column="photo", label_column="species").sizes()["train"] == 10
    with pytest.raises(UserError, match="none is named kind"):
        table(root, lines, image_column="photo", label_column="kind")
