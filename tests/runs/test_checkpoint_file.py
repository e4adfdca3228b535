"""Checkpoint files: damaged ones and those that would take memory or time are refused."""

import random
import resource
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch

from src.runs.checkpoint_file import load, save

CONTENT = {"state_dict": OrderedDict(w=torch.arange(1000.0), b=torch.ones(7)), "epoch": 3}


def refused(path, *words):
    with pytest.raises(ValueError) as caught:
        load(path)
    assert any(word in str(caught.value) for word in words or ["damaged"]), caught.value


def test_a_file_comes_back_and_torch_reads_it_too(tmp_path):
    save(CONTENT, tmp_path / "a.ckpt")
    for read in (load, lambda path: torch.load(path, weights_only=True)):
        content = read(tmp_path / "a.ckpt")
        assert torch.equal(content["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert zipfile.ZipFile(tmp_path / "a.ckpt").testzip() is None


def test_every_flipped_bit_is_noticed(tmp_path):
    save(CONTENT, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    end = 8 * len(whole)
    places = [*random.Random(0).sample(range(end), 200), *range(end - 8 * 94, end)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / "b.ckpt").write_bytes(damaged)
        refused(tmp_path / "b.ckpt")


def test_a_cut_or_longer_file_is_noticed(tmp_path):
    save(CONTENT, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    for damaged in (b"", whole[:-1], whole[:-72], whole[:-94], whole + b"\0", whole + whole):
        (tmp_path / "b.ckpt").write_bytes(damaged)
        refused(tmp_path / "b.ckpt")


def test_files_of_torch_have_no_hash_and_are_compared_with_their_checksums(tmp_path):
    torch.save(CONTENT, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt")["epoch"] == 3
    whole = bytearray((tmp_path / "a.ckpt").read_bytes())
    whole[whole.index(torch.arange(1000.0).numpy().tobytes()) + 5] ^= 1
    (tmp_path / "a.ckpt").write_bytes(whole)
    refused(tmp_path / "a.ckpt")


def test_a_bomb_is_not_unpacked(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1 << 20)}}, tmp_path / "a.ckpt")
    source = zipfile.ZipFile(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert (tmp_path / "b.ckpt").stat().st_size < 100_000
    refused(tmp_path / "b.ckpt", "compressed")


def doubled(n):
    """A list that holds 2**n values and takes n lists."""
    values: list = [0]
    for _ in range(n):
        values = [values, values]
    return values


def nested(n):
    values: list = []
    for _ in range(n):
        values = [values]
    return values


def endless():
    values: list = []
    values.append(values)
    return values


BIG = torch.zeros(1000)
HOSTILE = {
    "a list that doubles": doubled(28),
    "deep lists": nested(200),
    "a list in itself": endless(),
    "a tensor that repeats one number": torch.zeros(1).expand(1 << 40),
    "a thousand views of a tensor": [BIG[:] for _ in range(1000)],
    "a sparse tensor": torch.ones(2).to_sparse(),
    "a tensor without values": torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_are_refused_without_memory(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.save({"state_dict": {}, "optimizer_states": [HOSTILE[name]]}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "nested", "larger than the file", "plain values")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_full_disk_keeps_the_file(tmp_path):
    save(CONTENT, tmp_path / "a.ckpt")
    shutil.copy(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save(CONTENT, tmp_path / "a.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
