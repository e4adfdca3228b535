"""The process of one job, which trains as FOLDER/job.yaml says.

`run_job` is what a pool starts. `python -m PACKAGE.sweeps.worker FOLDER` does the same for engines
of other processes, and Lightning starts the other processes of a job (`trainer=ddp`) with it.
"""

import argparse
import atexit
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..config.cli import two_line_errors
from ..config.console import ConsoleHandler, LogFile, PlainFormatter
from ..config.stored import read_stored_config
from ..runs.run_folder import last_checkpoint

JOB_CONFIG = "job.yaml"  # in the folder of a job: its config as it was when the sweep was started
PARENT_VARIABLE = "JOB_PARENT_PID"  # the job with which the other processes of Lightning end
PR_SET_PDEATHSIG = 1


def run_job(folder: Path, environment: dict[str, str], log: Path | None) -> None:
    """Run a trusted job in a new process of `multiprocessing`; exit codes are those of `train.py`.

    Args:
        folder: of the job.
        environment: replaces the environment variables.
        log: file for all output; None leaves it on the screen.
    """
    # Ctrl-C reaches the supervisor alone, which ends each job once.
    if hasattr(os, "setsid"):
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    _limit_threads()
    multiprocessing.set_start_method(None, force=True)  # the default again, for loaders
    # Lightning repeats this command for the other processes of the job.
    sys.modules["__main__"] = sys.modules[__name__]
    sys.argv = [__file__, str(folder), "--trusted"]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not; loggers may save there


def _end_with_supervisor() -> None:
    """End this process when the supervisor is gone, also where that was killed."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os._exit(1)


def _limit_threads() -> None:
    """Follow OMP_NUM_THREADS, which libraries have read when the server imported them."""
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is not None:
        import torch
        from threadpoolctl import threadpool_limits

        threadpool_limits(int(threads))
        torch.set_num_threads(int(threads))


def main() -> None:
    """Run the job of the command line; exit codes are those of `train.py`."""
    parser = argparse.ArgumentParser(description="Run one job of a sweep or search.")
    parser.add_argument("folder", type=Path, help=f"of the job; holds {JOB_CONFIG}")
    parser.add_argument(
        "--trusted", action="store_true", help=f"whoever starts the job has checked {JOB_CONFIG}"
    )
    options = parser.parse_args()
    configure_logging(options.folder)
    run(options.folder.absolute(), options.trusted)


def run(folder: Path, trusted: bool) -> None:
    """Train, from the last checkpoint where there is one."""
    with two_line_errors():
        config = read_job(folder, trusted)
        checkpoint = last_checkpoint(folder)
        if checkpoint is not None:
            config.resume = str(checkpoint)
        from ..engine.train import train

        train(config, folder)


def read_job(folder: Path, trusted: bool) -> DictConfig:
    """The config of a job, which composes and interpolates nothing.

    Raises:
        UserError: the file is damaged, or not trusted and builds objects that conf/ does not name.
    """
    if trusted:
        return OmegaConf.load(folder / JOB_CONFIG)
    return OmegaConf.create(read_stored_config(folder / JOB_CONFIG))


def configure_logging(folder: Path) -> None:
    """Log to the screen and a file as conf/hydra/job_logging does; other ranks log errors only."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if first else logging.ERROR,
        handlers=[ConsoleHandler(sys.stdout)],
    )
    logging.getLogger().handlers[0].setFormatter(PlainFormatter("%(message)s"))
    if first:
        handler = LogFile(folder / "train.log", encoding="utf-8")
        file_format = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
        handler.setFormatter(PlainFormatter(file_format))
        logging.getLogger().addHandler(handler)


def end_with_parent() -> None:
    """Linux: let the kernel kill this process of Lightning when that of its job is gone."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it was gone before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    main()
