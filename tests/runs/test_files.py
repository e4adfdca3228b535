"""Files are replaced whole or not at all, and a lock excludes everybody else."""

import multiprocessing
import os

import pytest

from src.runs.files import Lock, atomic_write, read_json, write_csv, write_json, write_text


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "notes.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_write_error_names_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        write_text(tmp_path / "file" / "below.txt", "text")
    assert str(tmp_path / "file") in str(error.value.filename)


def test_json_and_csv_hold_any_script(tmp_path):
    write_json(tmp_path / "a.json", {"class": "猫", "loss": 0.1})
    assert read_json(tmp_path / "a.json") == {"class": "猫", "loss": 0.1}
    write_csv(tmp_path / "a.csv", ["class", "n"], [["猫, or cat", 2]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == 'class,n\n"猫, or cat",2\n'


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_an_unreadable_json_file_is_empty(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") == {}


def _hold(path, ready, done):
    lock = Lock(path)
    assert lock.acquire()
    ready.set()
    done.wait(30)


def test_a_lock_excludes_other_processes_and_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", ready, done))
    process.start()
    assert ready.wait(30)
    assert not Lock(tmp_path / "lock").acquire()
    assert Lock.is_held(tmp_path / "lock")
    process.kill()
    process.join()
    assert not Lock.is_held(tmp_path / "lock")
    with Lock(tmp_path / "lock"):
        assert Lock.is_held(tmp_path / "lock")


def test_a_lock_excludes_its_own_process(tmp_path):
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire() and not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_forked_workers_do_not_keep_a_lock(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.acquire()
    context = multiprocessing.get_context("fork")
    done = context.Event()
    worker = context.Process(target=done.wait, args=(30,))
    worker.start()
    lock.release()
    other = context.Process(target=_hold, args=(tmp_path / "lock", context.Event(), done))
    other.start()
    done.set()
    other.join()
    worker.join()
    assert other.exitcode == 0
