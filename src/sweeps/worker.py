"""The process of one job: `python -m PACKAGE.sweeps.worker FOLDER` trains as FOLDER/job.yaml says.

Lightning starts the other processes of a job (`trainer=ddp`) with the same command.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ..config.cli import two_line_errors
from ..config.console import ConsoleHandler, LogFile, PlainFormatter
from ..config.stored import read_stored_config
from ..runs.run_folder import last_checkpoint

JOB_CONFIG = "job.yaml"  # in the folder of a job: its config as it was when the sweep was started
PARENT_VARIABLE = "JOB_PARENT_PID"  # the process with which a job ends
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the job of the command line; exit codes are those of `train.py`."""
    parser = argparse.ArgumentParser(description="Run one job of a sweep or search.")
    parser.add_argument("folder", type=Path, help=f"of the job; holds {JOB_CONFIG}")
    parser.add_argument(
        "--trusted", action="store_true", help=f"whoever starts the job has checked {JOB_CONFIG}"
    )
    options = parser.parse_args()
    end_with_parent()
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
    """Linux: let the kernel kill this process when the process that started it is gone.

    Elsewhere a job whose supervisor is killed runs on, and the lock of its run folder keeps
    others out.
    """
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it was gone before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # for the other processes of this job


if __name__ == "__main__":
    main()
