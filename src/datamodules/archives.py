"""Files of data sets that have to be downloaded or unpacked: whole or not at all."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.utils import download_url

from ..errors import UserError
from ..runs.files import Lock


def download(path: Path, urls: Sequence[str], md5: str) -> None:
    """Have the file `path`, downloaded by one process from the first of `urls` that works.

    Raises:
        UserError: no address gives a file with this MD5.
    """
    reasons = []
    with Lock(f"{path}.lock"):
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
            for url in urls:
                try:
                    download_url(url, folder, path.name, md5)
                except (OSError, RuntimeError) as error:  # RuntimeError: another MD5
                    reasons.append(f"{url} ({error})")
                    continue
                os.replace(Path(folder) / path.name, path)
                return
    raise UserError(
        f"{path.name} is not in {path.parent} and could not be downloaded: {'; '.join(reasons)}.",
        f"Get {path.name} (MD5 {md5}) from {urls[0]} in another way and put it at {path}",
    )


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar archive whose top-level folder becomes `folder`.

    Members outside that folder, links out of it and devices are refused, and so is more than the
    disk holds.

    Raises:
        UserError: the archive is damaged or hostile, or holds no such folder.
    """
    with Lock(f"{archive}.lock"):
        if folder.exists():
            return
        try:
            with (
                tempfile.TemporaryDirectory(prefix=".extract-", dir=archive.parent) as staging,
                tarfile.open(archive) as content,
            ):
                if sum(member.size for member in content) > shutil.disk_usage(staging).free:
                    raise ValueError("it unpacks to more than the disk holds")
                content.extractall(staging, filter="data")
                if not (Path(staging) / folder.name).is_dir():
                    raise ValueError(f"it holds no folder {folder.name}")
                os.replace(Path(staging) / folder.name, folder)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise UserError(
                f"{archive} cannot be unpacked: {error}.",
                "Delete it and get it again; this one is damaged or hostile.",
            ) from None
