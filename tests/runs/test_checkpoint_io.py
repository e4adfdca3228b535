"""Lightning's checkpoint plugin."""

from functools import partial

import torch

from src.runs.checkpoint_io import AtomicCheckpointIO


def test_hyper_parameters_that_are_objects_are_left_out_and_named_once(tmp_path, caplog):
    given = {"width": 3, "sizes": (1, 2), "nested": {"a": None}, "optimizer": partial(print)}
    checkpoint_io = AtomicCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        checkpoint_io.save_checkpoint({"hyper_parameters": given}, tmp_path / name)
    stored = torch.load(tmp_path / "b.ckpt", weights_only=True)["hyper_parameters"]
    assert stored == {"width": 3, "sizes": (1, 2), "nested": {"a": None}}
    assert caplog.messages == ["Hyper-parameters that are objects are not saved: optimizer."]
    assert "optimizer" in given
