"""SIGTERM and Ctrl-C in the middle of a training."""

import os
import signal

import lightning as L
import pytest
import torch

from src.callbacks import LastCheckpoint, StopSignals
from src.errors import Interrupted


class Send(L.Callback):
    """Sends a signal to this process after a batch."""

    def __init__(self, number, batch=2, epoch=0):
        self.number, self.batch, self.epoch = number, batch, epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_exits_with_its_code(fit, tmp_path, capsys, number, code):
    before = [signal.getsignal(n) for n in StopSignals.SIGNALS]
    last = LastCheckpoint(dirpath=tmp_path)
    callbacks = [StopSignals(), Send(number), last]
    with pytest.raises(Interrupted, match=signal.Signals(number).name) as caught:
        fit(*callbacks, enable_checkpointing=True)
    assert caught.value.code == code
    assert torch.load(last.path, weights_only=True)["global_step"] == 3
    assert f"{signal.Signals(number).name}: stopping after this step" in capsys.readouterr().out
    assert [signal.getsignal(n) for n in StopSignals.SIGNALS] == before


def test_a_signal_in_the_last_step_leaves_a_complete_training(fit, tmp_path):
    last = LastCheckpoint(dirpath=tmp_path)
    with pytest.raises(Interrupted):
        fit(StopSignals(), Send(signal.SIGTERM, batch=5), last, enable_checkpointing=True)
    assert torch.load(last.path, weights_only=True)["global_step"] == 6


def test_without_a_checkpoint_the_run_stops_all_the_same(fit):
    with pytest.raises(Interrupted):
        fit(StopSignals(), Send(signal.SIGTERM))


def test_handlers_are_restored_after_a_training_and_after_an_error(fit):
    before = [signal.getsignal(n) for n in StopSignals.SIGNALS]
    fit(StopSignals())
    assert [signal.getsignal(n) for n in StopSignals.SIGNALS] == before

    class Fails(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(StopSignals(), Fails())
    assert [signal.getsignal(n) for n in StopSignals.SIGNALS] == before


def test_after_the_first_signal_ctrl_c_kills(fit):
    class Look(L.Callback):
        def on_train_batch_end(self, *args):
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers = []
    stop = StopSignals()
    with pytest.raises(Interrupted):
        fit(Send(signal.SIGTERM), Look(), stop)
    assert handlers[1] == stop._receive and handlers[2] == signal.SIG_DFL
