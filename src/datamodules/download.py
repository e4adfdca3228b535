"""Fetching and unpacking the files of a data set: checksums, resumed downloads, nothing half-done ever taken for whole."""

import hashlib
import os
import platform
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from src.errors import UserError


def md5(path: Path) -> str:
    """Hexadecimal MD5 of a file; the checksum that data set pages publish, against damage and not against malice."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(path: Path, urls: Sequence[str], checksum: str, timeout: float = 20.0) -> None:
    """Have the file `path`, downloaded from the first of `urls` that works.

    A broken download goes on where it stopped. The file appears under its name only when its MD5 is `checksum`. Several processes
    may call this at once: one downloads, the others wait.

    Raises:
        UserError: no address worked; it names the file, its checksum, where to get it and where to put it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if path.exists():
                return
            part = path.with_name(path.name + ".part")
            reasons = []
            for url in urls:
                try:
                    _download(url, part, timeout)
                except (urllib.error.URLError, OSError, ValueError) as error:
                    reasons.append(f"{url} ({getattr(error, 'reason', None) or error})")
                    continue
                if (found := md5(part)) == checksum:
                    part.replace(path)
                    return
                part.unlink()
                reasons.append(f"{url} (its MD5 is {found})")
    except PermissionError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", "Choose another folder with data.root=...") from None
    raise UserError(
        f"{path.name} is not in {path.parent} and could not be downloaded: {'; '.join(reasons)}.",
        f"Get {path.name} (MD5 {checksum}) from {urls[0]} another way and put it at {path}",
    )


def _download(url: str, part: Path, timeout: float) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send: the part is whole, or the checksum will say it is not
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        with open(part, "ab" if resumed else "wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
        expected = int(length) + (done if resumed else 0) if length else None
    if expected is not None and part.stat().st_size != expected:
        raise OSError(f"the connection broke after {part.stat().st_size} of {expected} bytes")


def extract(archive: Path, folder: Path, checksum: str | None = None) -> None:
    """Unpack a tar archive so that `folder`, its top-level folder, stands beside it, whole or not at all.

    Members that would land outside, links out of it and devices are refused (tarfile's `data` filter), and more than the disk holds.

    Raises:
        UserError: wrong checksum, damaged archive, no such folder inside, or a hostile member.
    """
    with FileLock(f"{archive}.lock"):
        if folder.exists():
            return
        if checksum is not None and (found := md5(archive)) != checksum:
            raise UserError(
                f"{archive} is damaged or another file: its MD5 is {found}, not {checksum}.",
                f"Delete {archive} and run again to download it, or put the right file there.",
            )
        if not hasattr(tarfile, "data_filter"):
            raise UserError(
                f"Python {platform.python_version()} cannot unpack {archive} safely.",
                f"Take Python 3.11.4 or newer, or unpack it yourself to {folder}.",
            )
        staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=archive.parent))
        room = shutil.disk_usage(staging).free

        def within_room(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
            nonlocal room
            room -= member.size
            if room < 0:
                raise ValueError("it unpacks to more than the disk holds")
            return tarfile.data_filter(member, path)

        try:
            with tarfile.open(archive) as tar:
                tar.extractall(staging, filter=within_room)
            os.replace(staging / folder.name, folder)
        except FileNotFoundError:
            raise UserError(f"{archive} holds no folder {folder.name}.", "Put the right archive there.") from None
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise UserError(f"{archive} cannot be unpacked: {error}.", "Get the archive again; this one is damaged or hostile.") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
