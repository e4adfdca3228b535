"""A model card (Mitchell et al., Model Cards for Model Reporting, 2019) from the files of a run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..runs.reading import number
from .analysis import FEW
from .text import format_number, shorten

MARK = "Written by export.py, which replaces this file as long as this line is here."
RESIZE = {
    "stretch": "photos are stretched to the square",
    "crop": "the central square of a photo is taken",
    "pad": "photos keep their proportions, and the square is filled up",
}
COLUMNS = ("class", "support", "precision", "recall", "f1")  # of per_class.csv
MAX_CLASSES = 100  # rows of the table by class
MAX_WIDTH = 200  # of a text


def model_card(
    description: Mapping[str, Any],
    results: Mapping[str, Any],
    run: Mapping[str, Any],
    per_class: Sequence[Mapping[str, str]],
) -> str:
    """Return the card of a network in Markdown. What is not known is left out.

    Args:
        description: of its checkpoint.
        results: `results.json` of its run; {}: unknown.
        run: `run.json`; {}: unknown.
        per_class: the rows of `per_class.csv`.
    """
    config, spec = description.get("config") or {}, description["model"]
    sizes = _mapping(_mapping(description.get("data")).get("sizes"))
    splits = [split for split in ("test", "val") if "acc" in _mapping(results.get(split))]
    rows = [_row(split, sizes.get(split), results[split]) for split in splits]
    crossed = _mapping(results.get("cross_validation"))
    if crossed:
        rows.append(_row("cross-validation", crossed.get("n"), crossed))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=escape_markdown,
    )
    return environment.get_template("model_card.md.jinja").render(
        mark=MARK,
        timm=_name(spec["_target_"]) == "Timm",
        network=spec.get("name") or _name(spec["_target_"]),
        data=_name(_mapping(config.get("data")).get("_target_")).removesuffix("DataModule"),
        classes=description["classes"],
        channels=description["channels"],
        image_size=description["image_size"],
        resize=RESIZE[description.get("resize", "stretch")],
        rows=rows,
        split=per_class[0].get("split") if per_class else None,
        per_class=[[row.get(column) for column in COLUMNS] for row in per_class[:MAX_CLASSES]],
        training=_training(spec, config, sizes, results, run),
        limits=_limits(splits, results, per_class),
    )


def _row(images: str, count: Any, metrics: Mapping[str, Any]) -> list[Any]:
    values = [number(metrics, name) for name in ("acc", "acc_balanced", "ece", "loss")]
    accuracy, balanced, ece, loss = values
    low, high = number(metrics, "acc_low"), number(metrics, "acc_high")
    interval = f"{low:.4f} to {high:.4f}" if low == low and high == high else None
    return [images, count, accuracy, interval, balanced, ece, loss]


def _training(
    spec: Mapping[str, Any],
    config: Mapping[str, Any],
    sizes: Mapping[str, Any],
    results: Mapping[str, Any],
    run: Mapping[str, Any],
) -> list[tuple[str, Any]]:
    """Facts by name, without those that are not known."""
    optimizer = _mapping(config.get("optimizer"))
    facts = {
        "images": ", ".join(f"{count} {split}" for split, count in sizes.items()),
        "network": spec.get("name") or _name(spec["_target_"]),
        "weights at the start": Path(spec.get("weights") or "").name,
        "parameters": results.get("num_parameters"),
        "optimizer": _name(optimizer.get("_target_")),
        "learning rate": optimizer.get("lr"),
        "epochs": results.get("epochs"),
        "seed": results.get("seed"),
        "date": str(run.get("start") or "")[:10],
        "torch": _mapping(run.get("versions")).get("torch"),
        "commit of the project": _mapping(run.get("git")).get("commit"),
    }
    return [(name, value) for name, value in facts.items() if value not in (None, "")]


def _limits(
    splits: Sequence[str], results: Mapping[str, Any], per_class: Sequence[Mapping[str, str]]
) -> list[str]:
    """Sentences that follow from the results."""
    limits = []
    if splits == ["val"] and results.get("best_epoch") is not None:
        limits.append(
            f"The epoch was chosen by {results.get('monitor')} on the val images: without a test "
            "split, the results are optimistic."
        )
    few = [
        str(row.get("class"))
        for row in per_class
        if (row.get("support") or "0").isdigit() and int(row.get("support") or 0) < FEW
    ]
    if few:
        more = f" and {len(few) - 5:,} more" if len(few) > 5 else ""
        limits.append(
            f"Fewer than {FEW} images measure the class {', '.join(few[:5])}{more}: its values are "
            "uncertain."
        )
    return limits


def escape_markdown(value: Any) -> str:
    """A value as text in which no character is markup, for a line of Markdown or a table cell."""
    if not isinstance(value, str):
        return format_number(value)
    text = shorten(value, MAX_WIDTH)
    return re.sub(r"[\\`*_{}\[\]()#+!|~<>&$@]|(?<=www)\.|:(?=//)", r"\\\g<0>", text)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name(target: Any) -> str:
    """The class at the end of a target; empty where there is none."""
    return str(target or "").rpartition(".")[2]
