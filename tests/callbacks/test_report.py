"""When the report is written."""

import lightning as L
import pytest

from src.callbacks import Report


@pytest.fixture
def written(monkeypatch):
    calls = []
    monkeypatch.setattr("src.reporting.html.write_report", lambda *args: calls.append(args))
    return calls


def test_after_the_test_of_a_trained_network(fit, tmp_path, written):
    run = fit(Report(tmp_path))
    assert not written
    run.trainer.test(run.task, run.data, verbose=False)
    assert written == [(tmp_path, "LeNet on Digits", run.task, run.data, "test")]


def test_not_where_nothing_was_trained(fit, tmp_path, written):
    run = fit()
    trainer = L.Trainer(accelerator="cpu", logger=False, callbacks=[Report(tmp_path)])
    trainer.test(run.task, run.data, verbose=False)
    assert not written


def test_after_a_failure(fit, tmp_path, written):
    class Fails(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(Fails(), Report(tmp_path))
    assert [call[:2] for call in written] == [(tmp_path, "LeNet on Digits")]
