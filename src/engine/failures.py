"""How a run that fails or is interrupted is recorded and reported."""

import errno
import logging
import os
import shlex
import signal
import textwrap
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from ..config.plain import plain_config
from ..config.tracebacks import own_frames
from ..errors import Interrupted, UserError
from ..runs import RunFolder
from ..runs.environment import command_line
from ..runs.files import DISK_FULL
from ..runs.run_folder import last_checkpoint, status

log = logging.getLogger(__name__)
# Texts of torch, and what leads to them.
NOTES = {
    "Expected more than 1 value per channel when training": "Batch normalization cannot train on "
    "one image: set data.drop_last=true, or another data.batch_size.",
    "does not require grad and does not have a grad_fn": "The loss does not depend on the "
    "parameters: item, detach or no_grad cuts them off.",
}
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def recorded_failures(cfg: DictConfig, run_dir: Path) -> Iterator[None]:
    """Record in the run folder how the run failed, if it does; SIGTERM ends it as an exception.

    Raises:
        UserError: in place of errors of the disk, the memory and the trainer's settings.
    """
    try:
        with _sigterm_raises():
            yield
    except BaseException as error:
        _add_notes(error)
        reported = reported_error(error, run_dir)
        if is_first_process():
            _record(cfg, run_dir, reported)
        if reported is error:
            raise
        raise reported from error


def _add_notes(error: BaseException) -> None:
    """Say what causes an error whose own text does not."""
    for text, note in NOTES.items():
        if text in str(error):
            error.add_note(note)


def _record(cfg: DictConfig, run_dir: Path, error: BaseException) -> None:
    folder = RunFolder(run_dir)
    if folder.is_used_elsewhere():  # the failure is that of this process, not of that run
        return
    if status(run_dir) == "completed":
        return  # it ended while the report was written, or before a resumed run has begun
    try:
        if not (folder.path / "run.json").is_file():
            folder.start(plain_config(cfg), command_line())
        folder.record_failure(error, seed=cfg.seed)
    except OSError as reason:
        log.error("%s cannot be written: %s", folder.path / "run.json", reason.strerror)
    last = last_checkpoint(folder.path)
    if isinstance(error, SystemExit | KeyboardInterrupt) and last is not None:
        log.info("To continue: python train.py %s", shlex.quote(f"resume={last}"))


def reported_error(error: BaseException, run_dir: Path) -> BaseException:
    """The error itself, or another one for what machine, settings or a signal have caused."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        return Interrupted(signal.SIGINT)  # Lightning exits with code 1
    if isinstance(error, UserError):
        return error
    last = last_checkpoint(run_dir)
    again = "start again."
    if last is not None:
        again = f"continue with: python train.py {shlex.quote(f'resume={last}')}"
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (*DISK_FULL, *NOT_WRITABLE):
        return _disk_error(error, run_dir, again)
    if _is_out_of_memory(error):
        return UserError(
            f"There was not enough memory: {text or type(error).__name__}",
            "Lower data.batch_size (trainer.accumulate_grad_batches makes up for it) or "
            f"data.image_size, then {again}",
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return UserError(
            f"A loader process was killed, probably for lack of memory: {text}",
            f"Lower data.num_workers or data.batch_size, then {again}",
        )
    if _is_raised_while_restoring(error):
        return UserError(
            f"The state in the checkpoint does not fit: {textwrap.shorten(text, 300)}",
            "Has the code changed since the run began? Resume from another checkpoint, or start a "
            "new run.",
        )
    if isinstance(error, MisconfigurationException):
        remedy = "Check the task, the callbacks and the keys under trainer (--cfg job shows them)."
        if "training_step" in text:
            remedy = "training_step returns the loss, a tensor, or a dict with loss and logits."
        return UserError(text, remedy)
    return error


def _disk_error(error: OSError, run_dir: Path, again: str) -> UserError:
    file = error.filename or run_dir
    if error.errno in DISK_FULL:
        return UserError(
            f"The disk is full: {file} cannot be written.", f"Free some space, then {again}"
        )
    return UserError(
        f"{file} cannot be written: {error.strerror}.",
        f"Change the permissions, or choose another folder, then {again}",
    )


def _is_raised_while_restoring(error: BaseException) -> bool:
    """Whether Lightning has raised an error while it restored the state of a checkpoint."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    restores = any(
        code.co_filename.endswith("checkpoint_connector.py") and "restore" in code.co_name
        for code in codes
    )
    return restores and isinstance(error, Exception) and not any(own_frames(error))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch has no class of its own for the memory of the CPU.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_first_process() -> bool:
    """Whether this is the process that writes files; launchers set the rank before it starts."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM raises `Interrupted`; during the training `StopSignals` saves a checkpoint first."""
    if threading.current_thread() is not threading.main_thread() or os.name == "nt":
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
