"""Exporting a network as a folder in the layout of the Hugging Face Hub, with a model card."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from ..inference.classifier import Classifier, load
from ..models import Timm
from ..reporting.model_card import MARK, model_card
from ..runs.files import read_json, write_json, write_text
from ..runs.hub_folder import CONFIG, WEIGHTS, check_safetensors
from ..runs.reading import UNREADABLE, check_folder, read_table
from .export_checks import compare_pixels, real_images
from .export_files import check_replaced

CARD = "README.md"
CROP_MODES = {"stretch": "squash", "crop": "center", "pad": "border"}  # of timm
# What reading needs. The settings of the run, with its folders, are left out.
DESCRIPTION = (
    *("model", "image_size", "resize", "classes", "channels", "mean", "std"),
    *("data", "fitted_on"),  # evaluate.py compares them
)


def export_hub(
    cfg: DictConfig, stored: Mapping[str, Any], classifier: Classifier, ckpt: Path
) -> tuple[Path, dict[str, float], str | None]:
    """Write model.safetensors, config.json and README.md if both networks compute the same.

    Networks of timm are also read by `timm.create_model("local-dir:FOLDER", pretrained=True)`.

    Returns:
        The file of the weights, the differences of logits, and why real images are not compared.
    """
    check_safetensors()
    from safetensors.torch import save_file

    folder = Path(cfg.output).expanduser() if cfg.output else ckpt.with_suffix(".hub")
    folder = folder.absolute()
    check_folder(folder if cfg.output else folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    check_replaced(folder / CARD, MARK)
    images, source = real_images(cfg.path, cfg.data.root, dict(stored), classifier)
    network: Any = classifier.model
    is_timm = isinstance(network, Timm)
    weights = (network.network if is_timm else network).state_dict()
    description = stored["description"]
    config = _timm_config(classifier) if is_timm else {}
    kept = {key: description[key] for key in DESCRIPTION if key in description}
    if "weights" in kept["model"]:  # it may be a file, and is not read again
        kept["model"] = kept["model"] | {"weights": None}
    config["description"] = kept
    if classifier.calibration.confidences:
        config["calibration"] = classifier.calibration.to_plain()
    with TemporaryDirectory(prefix=".export-", dir=folder) as name:
        part = Path(name)
        copies = {key: tensor.clone().contiguous() for key, tensor in weights.items()}
        save_file(copies, part / WEIGHTS, metadata={"format": "pt"})
        write_json(part / CONFIG, config)
        differences = compare_pixels(classifier, load(part), images, source)
        write_text(part / CARD, model_card(description, *_run_files(ckpt)))
        for file in part.iterdir():
            os.replace(file, folder / file.name)
    return folder / WEIGHTS, differences, None if images is not None else source


def _timm_config(classifier: Classifier) -> dict[str, Any]:
    """Return the part of config.json that timm reads."""
    network: Any = classifier.model
    known, size = network.network.pretrained_cfg, classifier.image_size
    config: dict[str, Any] = {
        "architecture": known["architecture"],
        "num_classes": len(classifier.classes),
        "label_names": classifier.classes,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [classifier.channels, size, size],
            "fixed_input_size": known.get("fixed_input_size", False),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": CROP_MODES[classifier.resize],
            "mean": classifier.mean.flatten().tolist(),
            "std": classifier.std.flatten().tolist(),
            "classifier": known.get("classifier"),
        },
    }
    if classifier.channels == 3:
        config["pretrained_cfg"]["first_conv"] = known.get("first_conv")
    else:
        config["model_args"] = {"in_chans": classifier.channels}
    return config


def _run_files(ckpt: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]:
    """Return results.json, run.json and per_class.csv of the run, where they are of this file."""
    run = ckpt.absolute().parent.parent
    results = read_json(run / "results.json")
    if results.get("checkpoint") != os.path.relpath(ckpt.absolute(), run):
        return {}, {}, []
    try:
        rows = read_table(run / "per_class.csv")
    except UNREADABLE:
        rows = []
    return results, read_json(run / "run.json"), rows
