"""What a composed config lacks before it is recorded or built."""

import inspect
import logging
import os

from omegaconf import DictConfig, OmegaConf

from ..runs.checkpoint import PACKAGE
from .factory import guarded
from .validate import locate

log = logging.getLogger(__name__)

AUGMENTATION = {"augment": None, "mixup": 0.0, "cutmix": 0.0}  # settings that switch it off


def prepare_config(cfg: DictConfig) -> None:
    """Complete a composed config before it is recorded or built.

    Paths become absolute, as seen from where the command was typed; settings of the data that are
    null become what pretrained weights expect.

    Raises:
        UserError: a network or weights that do not exist.
    """
    for group, keys in (("data", ("root", "cache_dir")), ("model", ("weights",))):
        node = cfg.get(group)
        for key in keys if isinstance(node, DictConfig) else ():
            # An interpolation stays as it is written: it may be a secret.
            if key not in node or OmegaConf.is_interpolation(node, key) or not node[key]:
                continue
            path = os.path.abspath(os.path.expanduser(node[key]))
            if group == "data" or os.path.isfile(path):
                node[key] = path
    _apply_pretrained_defaults(cfg)
    if cfg.get("trainer") and cfg.trainer.get("overfit_batches"):
        _prepare_overfitting(cfg)


def _prepare_overfitting(cfg: DictConfig) -> None:
    """`trainer.overfit_batches` shows whether a network can memorize a few batches.

    So the learning rate is constant, and nothing is augmented, validated or tested.
    """
    cfg.scheduler = {"_target_": f"{PACKAGE}.tasks.schedulers.constant", "interval": "epoch"}
    cfg.data.update({key: off for key, off in AUGMENTATION.items() if key in cfg.data})
    cfg.test = False
    log.info(
        "trainer.overfit_batches=%s: constant learning rate; no augmentation, validation or test",
        cfg.trainer.overfit_batches,
    )


def _apply_pretrained_defaults(cfg: DictConfig) -> None:
    """Set image size, channels, mean and std that are null to those of pretrained weights."""
    model = cfg.get("model")
    if not isinstance(model, DictConfig) or not model.get("weights"):
        return
    expected_input = getattr(locate("model", model._target_), "pretrained_input", None)
    if expected_input is None:
        return
    names = [name for name in inspect.signature(expected_input).parameters if name in model]
    defaults = guarded("model", expected_input, **{name: model[name] for name in names})
    if cfg.data.get("channels") not in (None, defaults["channels"]):
        defaults = {"image_size": defaults["image_size"]}  # mean and std are of other channels
    for key, value in defaults.items():
        if key in cfg.data and cfg.data[key] is None:
            cfg.data[key] = value
