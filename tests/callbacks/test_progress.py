"""The live line on a terminal and the line of an epoch."""

import io
import logging
import re
import sys

import lightning as L
import torch
from torchmetrics.classification import MulticlassF1Score

from src.callbacks import BestCheckpoint, Progress, StepSeed, Throughput
from src.callbacks.progress import format_epoch

LINE = (
    r"epoch   1/2  train loss \d\.\d{4} acc 0\.\d{4}  val loss \d\.\d{4} acc 0\.\d{4} \*  "
    r"lr 0\.05  \d+\.\d s, [\d,]+ images/s$"
)


def lines(caplog):
    return [record.message for record in caplog.records if record.name.endswith("progress")]


def test_a_line_for_each_epoch(fit, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    best = BestCheckpoint(dirpath=tmp_path)
    options = {"max_epochs": 2, "enable_progress_bar": True, "enable_checkpointing": True}
    fit(Throughput(), Progress(), best, **options)
    first, second = lines(caplog)
    assert re.match(LINE, first)
    assert second.startswith("epoch   2/2  train loss")


def test_extra_metrics_are_shown_and_missing_ones_left_out(fit, caplog):
    caplog.set_level(logging.INFO)
    extra = {"metrics": {"f1": MulticlassF1Score(10)}}
    options = {"max_epochs": 2, "check_val_every_n_epoch": 2, "enable_progress_bar": True}
    fit(Progress(), task=extra, **options)
    first, second = lines(caplog)
    assert "val" not in first and "images/s" not in first
    assert " f1 0." in second and second.count("acc") == 2  # not acc_balanced, acc_top5


def test_without_values_there_is_no_number():
    nan = float("nan")
    assert format_epoch("epoch 1", {"train/loss": nan, "lr": nan}, False) == "epoch 1"
    metrics = {"train/loss": 1.0, "val/loss": 2.0, "val/acc": 0.5}
    assert format_epoch("epoch 1", metrics, True) == (
        "epoch 1  train loss 1.0000  val loss 2.0000 acc 0.5000 *"
    )


def test_a_resumed_run_marks_only_better_epochs(fit, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    options = {"enable_progress_bar": True, "enable_checkpointing": True}
    run = fit(StepSeed(0), Progress(), BestCheckpoint(dirpath=tmp_path), **options)
    run.trainer.save_checkpoint(tmp_path / "end.ckpt")
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    best = content["callbacks"]["BestCheckpoint"]
    best["best_model_score"] = best["best_model_score"] * 0
    best["best_k_models"] = {"best.ckpt": best["best_model_score"]}
    torch.save(content, tmp_path / "end.ckpt")
    options |= {"max_epochs": 2, "resume": tmp_path / "end.ckpt"}
    fit(StepSeed(0), Progress(), BestCheckpoint(dirpath=tmp_path), **options)
    first, second = lines(caplog)
    assert "epoch   1/1" in first and " *" in first
    assert "epoch   2/2" in second and " *" not in second


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_live_line(fit, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress(refresh_seconds=0)
    run = fit(progress, max_epochs=2, enable_progress_bar=True, log_every_n_steps=2)
    run.trainer.test(run.task, run.data, verbose=False)
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert "epoch   1/2  1/6" in drawn[1] and "images/s" in drawn[1] and "left" in drawn[1]
    assert "loss" not in drawn[1]  # the step is counted after the callback
    assert "  loss 2." in drawn[3] and "  acc 0." in drawn[3]
    assert "validating ..." in drawn and "testing ..." in drawn and drawn[-1] == ""
    monkeypatch.setenv("COLUMNS", "20")
    run.trainer.print("note")
    progress._draw("x" * 100)
    assert terminal.getvalue().endswith("\r\x1b[K" + "x" * 19)


def test_without_a_terminal_there_are_plain_lines_now_and_then(fit, caplog, capsys):
    caplog.set_level(logging.INFO)
    fit(Progress(), enable_progress_bar=True)
    assert len(lines(caplog)) == 1  # of the epoch
    fit(Progress(line_seconds=0), enable_progress_bar=True)
    assert "epoch   1/1  1/6" in lines(caplog)[1] and "left" in lines(caplog)[1]
    assert "\x1b" not in capsys.readouterr().err


def test_validations_inside_an_epoch_have_lines(fit, caplog):
    caplog.set_level(logging.INFO)
    fit(Progress(), enable_progress_bar=True, val_check_interval=3)
    first, last = lines(caplog)
    assert first.startswith("epoch   1/1  step 3  val loss") and "train loss" in last


def test_a_module_prints_as_lightning_says(fit, capsys):
    class Print(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.print("a line")

    fit(Progress(), Print(), enable_progress_bar=True)
    assert "a line" in capsys.readouterr().out
