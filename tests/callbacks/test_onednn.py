"""oneDNN is off for very small work, and comes back as it was."""

import lightning as L
import pytest
import torch

from src.callbacks import OneDNN
from src.datamodules import DigitsDataModule


class Look(L.Callback):
    enabled = None

    def on_train_start(self, trainer, pl_module):
        self.enabled = torch.backends.mkldnn.enabled


@pytest.mark.parametrize(
    ("use", "batch_size", "expected", "automatic"),
    [
        (None, 4, False, {"onednn": False}),
        (None, 64, True, {"onednn": True}),
        (True, 4, True, {}),
        (False, 64, False, {}),
    ],
)
def test_used_where_it_pays(fit, use, batch_size, expected, automatic):
    callback, look = OneDNN(use), Look()
    fit(callback, look, data=DigitsDataModule(image_size=16, batch_size=batch_size))
    assert look.enabled is expected and callback.automatic == automatic
    assert torch.backends.mkldnn.enabled


def test_the_flag_is_restored_after_an_error_and_to_what_it_was(fit, monkeypatch):
    class Fails(L.Callback):
        def on_train_start(self, trainer, pl_module):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(OneDNN(use=False), Fails())
    assert torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        fit(OneDNN(use=False))
        assert not torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.enabled = True
