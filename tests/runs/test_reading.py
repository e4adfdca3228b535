"""Files of strangers are read within limits, and what cannot be read says why."""

import os

import pytest

from src.runs import reading
from src.runs.reading import UNREADABLE, check_folder, number, read_table, read_text, read_yaml


def test_what_is_written_comes_back(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1, {b: 猫}]\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, {"b": "猫"}]}
    (tmp_path / "a.csv").write_text('x,y\n1,"2\n3"\n\n')
    assert read_table(tmp_path / "a.csv") == [{"x": "1", "y": "2\n3"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x]\nb: *a\n", "references"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("- 1\n" * 20_000, "too many values"),
        ("a: " + "x" * 200_000, "more than 100,000 bytes"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: [1", "expected"),
    ],
)
def test_yaml_that_is_refused(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UNREADABLE, match=words):
        read_yaml(tmp_path / "a.yaml")


def test_tables_have_a_limited_number_of_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_CELLS", 10)
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 4)
    with pytest.raises(ValueError, match="more than 10 cells"):
        read_table(tmp_path / "a.csv")


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_nothing_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_text(tmp_path / "pipe", 100)


@pytest.mark.parametrize("values", [{}, {"val": 3}, {"val": {"loss": "x"}}, [], {"val": None}])
def test_a_number_that_is_missing(values):
    assert number(values, "val", "loss") != number(values, "val", "loss")  # NaN
    assert number({"val": {"loss": 2}}, "val", "loss") == 2.0


def test_a_folder_may_be_a_link_but_not_lead_out(tmp_path):
    (tmp_path / "run" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "inside").symlink_to(tmp_path / "run" / "sub")
    check_folder(tmp_path / "link")
    check_folder(tmp_path / "nowhere")
    (tmp_path / "run" / "sub" / "out").symlink_to(tmp_path)
    with pytest.raises(reading.UserError, match="sub/out is a link"):
        check_folder(tmp_path / "link")
