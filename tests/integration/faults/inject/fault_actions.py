"""What happens at a point: signals that a run sends itself, errors of the system, limits."""

import errno
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


def _interrupt_twice() -> None:
    _send(signal.SIGINT)
    _send(signal.SIGINT)  # the handler of the first one has run by now


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def _out_of_memory() -> None:
    raise MemoryError


def _out_of_gpu_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _fill_disk() -> None:
    """Leave no byte on the small file system FAULT_DISK."""
    disk = Path(os.environ["FAULT_DISK"])
    assert os.path.ismount(disk), f"{disk} is not a file system of its own"
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC


def _limit_memory() -> None:
    """Leave this process 64 MB more than it has (Linux)."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_file_size() -> None:
    """Let this process write no byte into a file; a write then fails with EFBIG."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


ACTIONS: dict[str, Callable[[], None]] = {
    name: functools.partial(_send, getattr(signal, name))
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP")
    if hasattr(signal, name)
}
ACTIONS |= {
    name: functools.partial(_fail, getattr(errno, name)) for name in ("ENOSPC", "EROFS", "EACCES")
}
ACTIONS |= {
    "SIGINT_twice": _interrupt_twice,
    "memory": _out_of_memory,
    "gpu_memory": _out_of_gpu_memory,
    "fill_disk": _fill_disk,
    "limit_memory": _limit_memory,
    "limit_file_size": _limit_file_size,
}
