"""SIGTERM and Ctrl-C: save the state of the run, then exit with the code of the signal."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning as L

from ..errors import Interrupted
from .base import EpochCallback


class StopSignals(EpochCallback):
    """Stops training at the next step that can be resumed exactly and saves it as `last.ckpt`.

    A second Ctrl-C ends the process at once. Runs on several processes are left to Lightning,
    which stops all of them at the same step, without saving.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._error: Interrupted | None = None
        self._callbacks: list[Any] = []
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: Lightning has just installed handlers of its own, which stop without saving.
        self._callbacks = list(trainer.callbacks)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if trainer.world_size == 1 and in_main_thread:
            self._previous = {n: signal.signal(n, self._receive) for n in self.SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # Job managers send SIGTERM to a process and to its parent, which may pass it on.
        if self._error is not None:
            return
        self._error = Interrupted(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.on_train_batch_end = self._raise
        for callback in self._callbacks:
            if hasattr(callback, "save_and_stop"):
                callback.save_and_stop(self._error)
                self.on_train_batch_end = None  # that callback raises the error
        name = self._error.name
        print(f"\n{name}: stopping after this step; press Ctrl-C to stop at once.", flush=True)

    def _raise(self, *args: Any) -> None:
        if self._error is not None:
            raise self._error

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._raise()  # the signal came in the last epoch, which is saved by now

    def _restore_handlers(self, *args: Any, **kwargs: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    on_train_end = on_exception = _restore_handlers
