"""Names and facts about the objects of a run, in plain types."""

import os
from collections.abc import Mapping
from typing import Any

import lightning as L

from ..errors import UserError
from ..runs.checkpoint import to_plain
from ..runs.run_folder import flatten

# Settings that runs are compared by, in the HParams tab of TensorBoard.
COMPARED_DATA = ["_target_", "augment", "mixup", "cutmix", "balance", "batch_size", "image_size"]
COMPARED_DATA += ["val_size", "fold"]
COMPARED_TRAINER = ["max_epochs", "precision", "accumulate_grad_batches", "gradient_clip_val"]


def run_title(trainer: L.Trainer, pl_module: Any) -> str:
    """Such as `SimpleV3 on Digits`."""
    network = type(getattr(pl_module, "model", pl_module)).__name__
    datamodule: Any = getattr(trainer, "datamodule", None)
    if datamodule is None:
        return network
    return f"{network} on {type(datamodule).__name__.removesuffix('DataModule')}"


def describe_data(trainer: L.Trainer) -> dict[str, Any]:
    """Sizes, classes and hashes of the data, as far as the datamodule gives them."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    if not hasattr(datamodule, "fingerprint"):
        return {}
    sizes = datamodule.sizes()
    return {
        "sizes": sizes,
        "classes": len(datamodule.classes),
        "fingerprint": datamodule.fingerprint(),
        "split_hash": datamodule.split_hash() if "val" in sizes else None,
    }


def check_same_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the data of a resumed run with those that it was trained on, see `describe_data`.

    Raises:
        UserError: other images or labels, or another division into training and validation.
    """
    for key in ("fingerprint", "split_hash"):
        if before.get(key) != now.get(key) and None not in (before.get(key), now.get(key)):
            sizes = [
                ", ".join(f"{n} {split}" for split, n in (data.get("sizes") or {}).items())
                for data in (before, now)
            ]
            raise UserError(
                f"The data are not those that this run was trained on: {sizes[0]} images then, "
                f"{sizes[1]} now{', of other content or order' if sizes[0] == sizes[1] else ''}.",
                "Restore them as they were, or start a new run without resume.",
            )


def describe_run(trainer: L.Trainer, pl_module: Any) -> dict[str, Any]:
    """The settings of a run that was composed by hand, as far as its objects show them."""
    data = getattr(trainer, "datamodule", None)
    objects = {"data": data, "model": getattr(pl_module, "model", None), "task": pl_module}
    config: dict[str, Any] = {
        name: {"_target_": f"{type(item).__module__}.{type(item).__qualname__}"}
        for name, item in objects.items()
        if item is not None
    }
    for name in ("batch_size", "image_size", "val_size", "split_seed"):
        if hasattr(data, name):
            config["data"][name] = getattr(data, name)
    names = ("max_epochs", "precision", "accumulate_grad_batches")
    config["trainer"] = {name: getattr(trainer, name) for name in names}
    return to_plain(config | {"seed": global_seed()})


def global_seed() -> int | None:
    """What `lightning.seed_everything` was given."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return int(seed) if seed else None


def compared_settings(config: Mapping[str, Any]) -> dict[str, float | str]:
    """The settings that runs are compared by, flat, in types that TensorBoard takes."""
    chosen = {
        name: config.get(name) for name in ("model", "optimizer", "scheduler", "task", "seed")
    }
    for group, keys in {"data": COMPARED_DATA, "trainer": COMPARED_TRAINER}.items():
        chosen[group] = {key: (config.get(group) or {}).get(key) for key in keys}
    return {
        key.removesuffix("._target_"): _setting(key, value)
        for key, value in flatten(chosen).items()
        if value not in (None, {}) and key != "task._target_"
    }


def _setting(key: str, value: Any) -> float | str:
    """A class by its name; lists and switches as text."""
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2].removesuffix("DataModule")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return str(value).lower()
    return value
