"""SIGTERM and Ctrl-C: a run that is told to stop saves what it has, says so, and exits with the signal's code."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L

from src.callbacks.last_checkpoint import LastCheckpoint


class Interrupted(SystemExit):
    """A signal ended the run; exits with 128 + its number, as shells have it."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name}"


class StopSignals(L.Callback):
    """Ends a run at the next step, saved as `last.ckpt`, or where it stands when there is nothing to save. A second Ctrl-C kills.

    As a context manager it listens for as long as the run lasts. A run on several processes is left to Lightning: it stops at the
    same step everywhere, and goes on from the last checkpoint that it wrote before.

    Args:
        mark: called with the exception to come, as soon as the signal does: nothing can be written any more after a second one.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, mark: Callable[[Interrupted], None]) -> None:
        self.mark = mark
        self.received: int | None = None
        self._training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self._before = {number: signal.signal(number, self._stop) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:  # job managers send SIGTERM to a process and to its parent, who hands it on
            return
        self.received = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # acts at once, also in the middle of a long operation
        if not self._training:
            raise Interrupted(number)
        self.mark(Interrupted(number))
        print(f"\n{signal.Signals(number).name}: stopping behind this step; Ctrl-C stops at once.", flush=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size == 1:
            self._training = True
            for number in self._before:  # Lightning has put its own in front, which stop without saving
                signal.signal(number, self._stop)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if self.received is None or not LastCheckpoint.exact(trainer, batch_idx):
            return
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer)
        raise Interrupted(self.received)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False
        if self.received is not None:  # it came in the last epoch, which is saved by now
            raise Interrupted(self.received)
