"""`last.ckpt` is saved where a run can be resumed exactly."""

import pytest
import torch

from src.callbacks import LastCheckpoint, StepSeed


class Cut(BaseException):
    """Stands for a kill inside this process."""


class CutAfter(StepSeed):
    """Ends the run after a number of batches."""

    def __init__(self, batches):
        super().__init__(0)
        self.limit = batches

    def on_train_batch_end(self, trainer, *args, **kwargs):
        super().on_train_batch_end(trainer, *args, **kwargs)
        if self.batches == self.limit:
            raise Cut

    @property
    def state_key(self):
        return "StepSeed"


class Steps(LastCheckpoint):
    """The steps at which a checkpoint was saved."""

    def __init__(self, **options):
        super().__init__(**options)
        self.steps = []

    def save(self, trainer):
        super().save(trainer)
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("every", "options", "steps"),
    [
        (None, {}, [6, 12]),
        (4, {}, [4, 6, 8, 12]),
        (3, {"val_check_interval": 0.5}, [4, 6, 10, 12]),  # 3 and 9 wait for the next batch
        (2, {"accumulate_grad_batches": 2}, [2, 3, 4, 6]),
        (None, {"fast_dev_run": True}, [1]),
    ],
)
def test_the_steps_of_checkpoints(fit, tmp_path, every, options, steps):
    last = Steps(every_n_train_steps=every, dirpath=tmp_path / "checkpoints")
    fit(last, max_epochs=2, enable_checkpointing=True, **options)
    assert last.steps == steps
    assert last.path.is_file() != bool(options.get("fast_dev_run"))


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}])
def test_a_run_that_was_cut_off_ends_equal(fit, tmp_path, options):
    def states(folder, seed, resume=None):
        last = LastCheckpoint(every_n_train_steps=3, dirpath=tmp_path / folder)
        run = fit(seed, last, max_epochs=2, resume=resume, enable_checkpointing=True, **options)
        metrics = {name: float(value) for name, value in run.trainer.callback_metrics.items()}
        return metrics, torch.load(last.path, weights_only=True)["state_dict"]

    metrics, weights = states("whole", StepSeed(0))
    with pytest.raises(Cut):
        states("parts", CutAfter(11))
    stored = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)
    assert stored["global_step"] in (9, 10)
    again, again_weights = states("parts", StepSeed(0), tmp_path / "parts" / "last.ckpt")
    assert all(torch.equal(weights[name], again_weights[name]) for name in weights)
    assert again == metrics


def test_the_folder_of_the_trainer_is_the_default(fit, tmp_path):
    last = LastCheckpoint()
    fit(last, enable_checkpointing=True)
    assert last.path == tmp_path / "checkpoints" / "last.ckpt" and last.path.is_file()
