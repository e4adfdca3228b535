"""What TensorBoard gets, read back from the event files; and that logging changes no run."""

import errno
import threading
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from src.callbacks import ImageLogger, LastCheckpoint, StepSeed
from src.loggers import TensorBoard


def events(folder, stage):
    path = str(folder / "tb" / stage)
    return EventAccumulator(path, {"scalars": 0, "images": 0, "tensors": 0}).Reload()


def curves(folder, stage):
    """Steps and values by tag."""
    read = events(folder, stage)
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def steps(folder, stage, tag):
    return [step for step, _ in curves(folder, stage)[tag]]


@pytest.fixture
def train(fit, tmp_path):
    """Train two epochs of twelve steps with TensorBoard in `tmp_path/name`."""

    def run(name, *callbacks, log_graph=False, **options):
        logger = TensorBoard(tmp_path / name, log_graph=log_graph)
        options = {"max_epochs": 2, "limit_train_batches": 12, "log_every_n_steps": 5} | options
        return fit(StepSeed(0), *callbacks, logger=logger, **options)

    return run


def test_train_and_val_are_two_curves_of_one_chart(train, tmp_path):
    run = train("a")
    assert steps(tmp_path / "a", "train", "metrics/loss") == [4, 9, 11, 16, 21, 23]
    assert steps(tmp_path / "a", "val", "metrics/loss") == [11, 23]
    for stage in ("train", "val"):
        assert steps(tmp_path / "a", stage, "metrics/acc") == [11, 23]
    lr = [value for _, value in curves(tmp_path / "a", "train")["training/lr"]]
    assert lr == pytest.approx([0.05] * 6)
    loss = curves(tmp_path / "a", "val")["metrics/loss"][-1][1]
    assert loss == pytest.approx(run.task.evaluations["val"].metrics["loss"], rel=1e-6)


def test_images_are_in_the_run_of_their_split(train, tmp_path):
    run = train("a", ImageLogger(4))
    run.trainer.test(run.task, run.data, verbose=False)
    run.trainer.logger.save()
    assert events(tmp_path / "a", "train").Tags()["images"] == ["images/augmented"]
    tags = set(events(tmp_path / "a", "test").Tags()["images"])
    assert {"images/predictions", "images/confusion", "images/features features.0 Conv2d"} <= tags
    assert steps(tmp_path / "a", "test", "metrics/acc") == [24]


def test_results_are_a_row_beside_the_settings(tmp_path):
    logger = TensorBoard(tmp_path)
    settings = {"optimizer": "SGD", "optimizer.lr": 0.02, "data.mixup": "true"}
    logger.log_results(settings, {"val/loss": 0.5, "test/acc": 0.9}, 24)
    assert curves(tmp_path, "results") == {
        "val/loss": [(24, 0.5)],
        "test/acc": [(24, pytest.approx(0.9))],
    }
    written = events(tmp_path, "results").SummaryMetadata(metadata.SESSION_START_INFO_TAG)
    hparams = metadata.parse_session_start_info_plugin_data(written.plugin_data.content).hparams
    assert hparams["optimizer.lr"].number_value == 0.02
    assert hparams["optimizer"].string_value == "SGD"
    assert not list(tmp_path.rglob("hparams.yaml"))


def test_the_graph_is_drawn_without_warnings(train, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(trace|Trac|jit).*")
        train("a", log_graph=True, limit_train_batches=1)
    assert events(tmp_path / "a", "train").Tags()["graph"] is True


def test_a_network_that_cannot_be_drawn_is_trained(train, caplog):
    class Odd(torch.nn.Sequential):
        def forward(self, images):
            if type(images.shape[0]) is not int:
                raise ValueError("no tracing")
            return super().forward(images)

    network = Odd(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    train("a", log_graph=True, model=network, limit_train_batches=1)
    assert "cannot draw the network: no tracing" in caplog.text


def test_logging_changes_no_run(fit, train):
    options = {"max_epochs": 2, "limit_train_batches": 12}
    plain = fit(StepSeed(0), **options).task.state_dict()
    logged = train("a", ImageLogger(), log_graph=True).task.state_dict()
    assert all(torch.equal(plain[name], logged[name]) for name in plain)


def test_a_resumed_run_has_neither_gaps_nor_duplicates(train, tmp_path):
    """It was cut off after a checkpoint, so that some of what was logged is logged again."""
    train("whole")

    class Cut(BaseException):
        pass

    class CutOff(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            if trainer.global_step == 24:
                raise Cut

    last = LastCheckpoint(dirpath=tmp_path / "parts")
    with pytest.raises(Cut):
        train("parts", last, CutOff(), enable_checkpointing=True)
    assert torch.load(last.path, weights_only=True)["global_step"] == 12
    assert steps(tmp_path / "parts", "train", "metrics/loss")[-1] == 21
    # The file names order the parts by the second in which they were created.
    for file in (tmp_path / "parts" / "tb").rglob("events.*"):
        kind, out, name, second, rest = file.name.split(".", 4)
        file.rename(file.with_name(f"{kind}.{out}.{name}.{int(second) - 10}.{rest}"))
    train("parts", last, resume=last.path, enable_checkpointing=True)
    for stage in ("train", "val"):
        assert curves(tmp_path / "parts", stage) == curves(tmp_path / "whole", stage), stage


def test_everything_before_a_checkpoint_is_on_the_disk(train, tmp_path):
    class Look(LastCheckpoint):
        def save(self, trainer):
            super().save(trainer)
            seen.append(steps(tmp_path / "a", "train", "metrics/loss")[-1])

    seen = []
    train("a", Look(dirpath=tmp_path), enable_checkpointing=True)
    assert seen == [11, 23]


def test_a_new_run_in_an_old_folder_starts_anew(train, tmp_path):
    train("a").trainer.logger.log_results({}, {"val/loss": 1.0}, 24)
    train("a", max_epochs=1)
    assert steps(tmp_path / "a", "train", "metrics/acc") == [11]
    assert not (tmp_path / "a" / "tb" / "results").exists()


def test_it_works_without_a_trainer(tmp_path):
    logger = TensorBoard(tmp_path, flush_secs=1)
    logger.log_metrics({"val/loss": 1.0, "speed": 2.0, "epoch": 0}, 3)
    logger.log_image("test/x", [np.zeros((4, 4, 3), np.uint8)], 3)
    logger.experiment.add_text("note", "text")
    logger.finalize("success")
    assert curves(tmp_path, "val") == {"metrics/loss": [(3, 1.0)]}
    assert curves(tmp_path, "train") == {"training/speed": [(3, 2.0)]}
    assert events(tmp_path, "test").Tags()["images"] == ["images/x"]


def test_a_full_disk_is_raised_and_not_printed(tmp_path, monkeypatch, capsys):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        TensorBoard(tmp_path).log_metrics({"val/loss": 1.0}, step=1)
    assert capsys.readouterr().err == ""
    other = threading.Thread(target=full, args=(None, None))
    other.start()
    other.join()
    assert "No space left" in capsys.readouterr().err
