"""From checkpoint files to the task and the data that they were trained with."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchmetrics import Metric

from ..config.instantiate import instantiate_datamodule
from ..datamodules import ImageDataModule, ImageFolderDataModule
from ..errors import UserError
from ..inference import Classifier, Ensemble, build_network
from ..runs import checkpoint
from ..tasks import ClassificationTask

MAX_NAME = 255  # of a file, in characters: no longer name can exist
Checkpoint = Mapping[str, Any]


def checkpoint_files(ckpt: str | Sequence[str]) -> list[Path]:
    """Return the files that `ckpt=` names: `a.ckpt`, `a.ckpt,b.ckpt` or `[a.ckpt,b.ckpt]`.

    Names may contain commas and brackets: an existing file of the whole text is taken as it is,
    else the longest existing name up to a comma.

    Raises:
        UserError: there is no such file.
    """
    if not isinstance(ckpt, str):
        return [Path(path) for path in ckpt]
    if os.path.isfile(ckpt):  # Path.is_file raises an OSError where the text is too long for a name
        return [Path(ckpt)]
    is_list = ckpt.startswith("[") and ckpt.endswith("]")
    pieces = (ckpt[1:-1] if is_list else ckpt).split(",")
    files: list[Path] = []
    while pieces:
        count = _pieces_of_longest_file(pieces)
        if count == 0:
            missing = pieces[0].strip() if files else ckpt
            raise UserError(
                f"There is no checkpoint {missing}.",
                "Give the path of a .ckpt file, such as runs/NAME/checkpoints/best.ckpt.",
            )
        files.append(Path(",".join(pieces[:count]).strip()))
        pieces = pieces[count:]
    return files


def _pieces_of_longest_file(pieces: Sequence[str]) -> int:
    """Return how many of the first pieces, joined by commas, name a file; 0 where none do."""
    longest = 0
    name = ""
    for count, piece in enumerate(pieces, 1):
        name = piece if count == 1 else f"{name},{piece}"
        if len(os.path.basename(name)) > MAX_NAME:
            break
        if os.path.isfile(name.strip()):
            longest = count
    return longest


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
        mean, std = description["mean"], description["std"]
        return ClassificationTask(network, classes, mean, std, metrics=metrics)
    for path, stored in zip(paths, checkpoints, strict=True):
        _check_compatible(paths[0], description, path, stored["description"])
    members = [Classifier(build_network(stored), stored["description"]) for stored in checkpoints]
    ensemble = Ensemble(members, classes, flip)  # each member normalizes by itself
    mean, std = [0.0] * description["channels"], [1.0] * description["channels"]
    return ClassificationTask(ensemble, classes, mean, std, metrics=metrics)


def _check_compatible(
    first_path: Path, first: Mapping[str, Any], path: Path, description: Mapping[str, Any]
) -> None:
    if set(description["classes"]) != set(first["classes"]):
        raise UserError(
            f"{path} does not know the same classes as {first_path}.",
            "Average networks that were trained on the same classes.",
        )
    keys = ("channels", "image_size", "resize")
    inputs = [tuple(facts.get(key) for key in keys) for facts in (first, description)]
    if inputs[0] != inputs[1]:
        raise UserError(
            f"{first_path} takes images with (channels, size, resize) = {inputs[0]}, {path} with "
            f"{inputs[1]}.",
            "Average networks that were trained with the same data.channels, data.image_size and "
            "data.resize.",
        )


def rebuild_datamodule(stored: Checkpoint, cfg: DictConfig) -> ImageDataModule:
    """Return the data of a checkpoint with the changes in `cfg.data`, or the data that it names.

    Raises:
        UserError: neither the checkpoint nor `cfg.data` names a data set.
    """
    description = stored["description"]
    changes = OmegaConf.to_container(cfg.data, resolve=True)
    changes = {key: value for key, value in changes.items() if value is not None}
    if "_target_" in changes:
        return _other_datamodule(description, changes)
    own = (description.get("config") or {}).get("data")
    if own is None:
        raise UserError(
            "This checkpoint comes from a task composed in Python: it does not name its data.",
            "Name the data: data=image_folder data.root=...",
        )
    own = {key: value for key, value in own.items() if key not in checkpoint.TRAINING_KEYS}
    return checkpoint.construct(own, "datamodules", ImageDataModule, **changes)


def _other_datamodule(description: Mapping[str, Any], settings: dict[str, Any]) -> ImageDataModule:
    """Return another data set, with images brought to the network's input as in training."""
    settings |= {key: description[key] for key in ("image_size", "channels")}
    if "resize" in settings:
        settings["resize"] = description["resize"]
    datamodule = instantiate_datamodule(OmegaConf.create({"data": settings | {"augment": None}}))
    if not isinstance(datamodule, ImageDataModule):
        raise UserError(
            f"{type(datamodule).__name__} is not derived from ImageDataModule, which evaluate.py "
            "needs to match classes and name images.",
            "Derive it from ImageDataModule, or evaluate with lightning.Trainer.test.",
        )
    if isinstance(datamodule, ImageFolderDataModule) and not datamodule.test_size:
        # A folder without splits is evaluated as a whole, unless the network was trained on it.
        datamodule.prepare_data()
        trained = (description.get("data") or {}).get("fingerprint")
        datamodule.whole = datamodule.fingerprint() != trained
    return datamodule
