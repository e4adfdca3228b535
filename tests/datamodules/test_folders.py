"""Which folders and files count."""

from src.datamodules.folders import class_folders, has_split_folders, image_files


def test_hidden_folders_and_files_are_passed_over(tmp_path):
    for name in ("b/x", "a", ".git", "__MACOSX"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b/2.JPG", "b/x/1.png", "b/.3.jpg", "b/notes.txt"):
        (tmp_path / name).touch()
    assert list(class_folders(tmp_path)) == ["a", "b"]
    found = [path.relative_to(tmp_path / "b").as_posix() for path in image_files(tmp_path / "b")]
    assert found == ["2.JPG", "x/1.png"]


def test_split_folders(tmp_path):
    assert not has_split_folders(tmp_path)
    (tmp_path / "validation").mkdir()
    assert has_split_folders(tmp_path)
