"""Names and facts about the objects of a run, in plain types."""

import os
from collections.abc import Mapping
from typing import Any

import lightning as L

from ..runs.checkpoint import to_plain
from ..runs.run_folder import flatten

# Settings that runs are compared by, in the HParams tab of TensorBoard.
COMPARED_DATA = (
    "_target_",
    "augment",
    "mixup",
    "cutmix",
    "batch_size",
    "image_size",
    "val_size",
    "fold",
    "balance",
)
COMPARED_TRAINER = ("max_epochs", "precision", "accumulate_grad_batches", "gradient_clip_val")


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


def describe_run(trainer: L.Trainer, pl_module: Any) -> dict[str, Any]:
    """The settings of a run that was composed by hand, as far as its objects show them."""
    model = getattr(pl_module, "model", None)
    objects = {"data": getattr(trainer, "datamodule", None), "model": model, "task": pl_module}
    config: dict[str, Any] = {
        name: {"_target_": _full_name(item)} for name, item in objects.items() if item is not None
    }
    if "data" in config:
        facts = ("batch_size", "image_size", "val_size", "split_seed")
        config["data"] |= _attributes(objects["data"], facts)
    config["trainer"] = {
        "max_epochs": trainer.max_epochs,
        "precision": str(trainer.precision),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
    }
    config["seed"] = global_seed()
    return to_plain(config)


def global_seed() -> int | None:
    """What `lightning.seed_everything` was given."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return int(seed) if seed else None


def _full_name(item: object) -> str:
    return f"{type(item).__module__}.{type(item).__qualname__}"


def _attributes(item: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in names if hasattr(item, name)}


def compared_settings(config: Mapping[str, Any]) -> dict[str, float | str]:
    """The settings that runs are compared by, flat, in types that TensorBoard takes."""
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    task = {k: v for k, v in (config.get("task") or {}).items() if k != "_target_"}
    chosen = {
        "data": {key: data.get(key) for key in COMPARED_DATA},
        **{group: config.get(group) for group in ("model", "optimizer", "scheduler")},
        "task": task,
        "trainer": {key: trainer.get(key) for key in COMPARED_TRAINER},
        "seed": config.get("seed"),
    }
    return {
        key.removesuffix("._target_"): _setting(key, value)
        for key, value in flatten(chosen).items()
        if value not in (None, {})
    }


def _setting(key: str, value: Any) -> float | str:
    """A class by its name; lists and switches as text."""
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2].removesuffix("DataModule")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return str(value).lower()
    return value
