"""Archives and downloads: whole or not at all, and nothing outside the folder."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path

import pytest

from src.datamodules.archives import download, extract
from src.errors import UserError


def write_archive(path: Path, *members: tuple[str, dict, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


SYMBOLIC = {"type": tarfile.SYMTYPE, "linkname": "../../.."}
HARD = {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"}
DEVICE = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}
HOSTILE = {
    "outside": [("data/../../ran", {}, b"x")],
    "link": [("data/l", SYMBOLIC, b""), ("data/l/ran", {}, b"x")],
    "hard_link": [("data/l", HARD, b"")],
    "device": [("data/d", DEVICE, b"")],
    "nothing": [],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused(kind, tmp_path):
    archive = write_archive(tmp_path / "a.tar", *HOSTILE[kind])
    with pytest.raises(UserError, match=r"a\.tar"):
        extract(archive, tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tar", "a.tar.lock"}


def test_archives_larger_than_the_disk_or_truncated_are_refused(tmp_path):
    sparse = tarfile.TarInfo("data/big")
    sparse.size = 1 << 50
    (tmp_path / "a.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    write_archive(tmp_path / "b.tar", ("data/a.jpg", {}, b"x" * 5000))
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:2000])
    for name in ("a.tar", "b.tar"):
        with pytest.raises(UserError, match="cannot be unpacked"):
            extract(tmp_path / name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_good_archive_is_unpacked_once(tmp_path):
    archive = write_archive(tmp_path / "a.tar", ("data/a/x.txt", {}, b"x"), ("data/b", {}, b"y"))
    for _ in range(2):
        extract(archive, tmp_path / "data")
        assert (tmp_path / "data" / "a" / "x.txt").read_bytes() == b"x"


@pytest.fixture
def server():
    """A server on this machine; `server.content` is what it sends, `server.url` its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content = os.urandom(1000)
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_download_is_checked_and_appears_whole(server, tmp_path):
    md5 = hashlib.md5(server.content).hexdigest()
    with pytest.raises(UserError) as caught:
        download(tmp_path / "file", [server.url], "0" * 32)
    assert server.url in caught.value.problem
    assert str(tmp_path / "file") in caught.value.remedy and "0" * 32 in caught.value.remedy
    assert not (tmp_path / "file").exists()
    download(tmp_path / "new" / "file", ["http://127.0.0.1:9/nothing", server.url], md5)
    assert (tmp_path / "new" / "file").read_bytes() == server.content
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"file", "file.lock"}
