"""From checkpoint files to the task and the data that they were trained with."""

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torchmetrics import Metric

from ..config.instantiate import instantiate_datamodule
from ..config.validate import parameters, targets, validate
from ..datamodules import ImageDataModule, ImageFolderDataModule
from ..errors import UserError
from ..inference import Classifier, Ensemble, build_network
from ..inference.calibration import read_calibration
from ..inference.classifier import batch_size
from ..runs import checkpoint
from ..tasks import ClassificationTask

log = logging.getLogger(__name__)
Checkpoint = Mapping[str, Any]


def checkpoint_files(ckpt: str | Sequence[str]) -> list[Path]:
    """Return the files of `ckpt=`, see `split_paths`; a run folder stands for its checkpoint."""
    return [checkpoint.find(path) for path in split_paths(ckpt)]


def split_paths(given: str | Sequence[str]) -> list[str]:
    """The paths of `A`, `A,B`, `[A,B]` or a list."""
    if isinstance(given, str) and not os.path.exists(given):  # a path may have any name
        is_list = given.startswith("[") and given.endswith("]")
        given = (given[1:-1] if is_list else given).split(",")
    return [given] if isinstance(given, str) else [path.strip() for path in given]


def rebuild_task(
    paths: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    flip: bool,
    metrics: Mapping[str, Metric],
) -> ClassificationTask:
    """Return a task around the network of a checkpoint, or around the ensemble of several.

    Args:
        paths: the files, for messages.
        checkpoints: their content.
        flip: average over each image and its mirror image.
        metrics: extra metrics by name.

    Raises:
        UserError: networks that do not take the same images or do not know the same classes.
    """
    description = checkpoints[0]["description"]
    classes = description["classes"]
    if len(checkpoints) == 1 and not flip:
        network = build_network(checkpoints[0])
        temperature = read_calibration(checkpoints[0]).temperature
        if temperature != 1:
            network.register_forward_hook(lambda module, images, logits: logits / temperature)
        mean, std = description["mean"], description["std"]
        return ClassificationTask(network, classes, mean, std, metrics=metrics)
    for path, stored in zip(paths, checkpoints, strict=True):
        other = stored["description"]
        keys = ["channels", "image_size", "resize"]
        different = [key for key in keys if other.get(key) != description.get(key)]
        if set(other["classes"]) != set(classes):
            different.append("classes")
        if different:
            raise UserError(
                f"{path} and {paths[0]} have other values of {', '.join(different)}.",
                "Average networks that were trained on the same classes and sizes of images.",
            )
    members = [
        Classifier(build_network(stored), stored["description"], read_calibration(stored))
        for stored in checkpoints
    ]
    ensemble = Ensemble(members, classes, flip)  # each member normalizes by itself
    mean, std = [0.0] * description["channels"], [1.0] * description["channels"]
    return ClassificationTask(ensemble, classes, mean, std, metrics=metrics)


def rebuild_datamodule(stored: Checkpoint, changes: Mapping[str, Any]) -> ImageDataModule:
    """Return the data of a checkpoint with changed settings, or the data that `changes` name.

    Raises:
        UserError: neither the checkpoint nor `changes` name a data set, or `changes` do not name
            the folder.
    """
    description = stored["description"]
    if "_target_" in changes:
        return _other_datamodule(description, dict(changes))
    own, cls, root = _own_settings(description)
    if cls.reads_root:
        _check_root(root, changes)
    known, _ = parameters(cls)
    if "eval_batch_size" in known:
        changes = {"eval_batch_size": batch_size(description.get("image_size") or 1), **changes}
    target = f"{cls.__module__}.{cls.__qualname__}"  # the package may have another name by now
    validate({"data": {**own, **changes, "_target_": target}})
    datamodule = checkpoint.construct(own, "datamodules", ImageDataModule, **changes)
    if isinstance(datamodule, ImageFolderDataModule) and "test_size" not in changes:
        _take_whole(datamodule, description)
    return datamodule


def _own_settings(description: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """The settings of a checkpoint's data that it may choose, their class, and their folder."""
    own = checkpoint.to_plain((description.get("config") or {}).get("data"))
    if own is None:
        raise UserError(
            "This checkpoint comes from a task composed in Python: it does not name its data.",
            "Name the data: data=image_folder data.root=...",
        )
    cls = checkpoint.find_class(str(own.get("_target_")), "datamodules", ImageDataModule)
    left_out = (*checkpoint.TRAINING_KEYS, *checkpoint.MACHINE_KEYS)
    settings = {key: value for key, value in own.items() if key not in left_out}
    if len(list(targets(settings))) > 1:
        raise UserError(
            "The checkpoint names objects to build inside the data set.",
            "Name the data: data=NAME data.root=...",
        )
    return settings, cls, own.get("root")


def _check_root(trained: Any, changes: Mapping[str, Any]) -> None:
    """A checkpoint does not choose the folder of the data: whoever evaluates it types another one
    than the default, `data`."""
    if "root" in changes or not isinstance(trained, str) or not os.path.isdir(trained):
        return
    if os.path.abspath("data") != trained:
        raise UserError(
            f"The network was trained on {trained}, and a checkpoint does not choose folders.",
            f"Add {shlex.quote(f'data.root={trained}')} to the command.",
        )


def _other_datamodule(description: Mapping[str, Any], settings: dict[str, Any]) -> ImageDataModule:
    """Return another data set, with images brought to the network's input as in training."""
    settings |= {key: description[key] for key in ("image_size", "channels")}
    if "resize" in settings:
        settings["resize"] = description["resize"]
        if description["resize"] == "pad":
            settings["mean"] = list(description["mean"])  # the colour of the padding
    config = OmegaConf.create({"data": settings | {"augment": None}})
    validate(config)
    datamodule = instantiate_datamodule(config)
    if not isinstance(datamodule, ImageDataModule):
        raise UserError(
            f"{type(datamodule).__name__} is not derived from ImageDataModule, which evaluate.py "
            "needs to match classes and name images.",
            "Derive it from ImageDataModule, or evaluate with lightning.Trainer.test.",
        )
    if isinstance(datamodule, ImageFolderDataModule) and not datamodule.test_size:
        _take_whole(datamodule, description)
    return datamodule


def _take_whole(data: ImageFolderDataModule, description: Mapping[str, Any]) -> None:
    """Evaluate all images of a folder without a test split that the network was not trained on."""
    data.prepare_data()
    trained = (description.get("data") or {}).get("fingerprint")
    if data.fingerprint() == trained:
        return
    data.whole, data.test_size = True, 0
    root = ((description.get("config") or {}).get("data") or {}).get("root")
    if isinstance(root, str) and os.path.realpath(root) == os.path.realpath(data.root):
        log.warning(
            "The training images in %s have changed since the training. Where they are evaluated, "
            "the metrics are too high.",
            root,
        )
