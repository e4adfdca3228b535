"""evaluate.py on exported files: the metrics of the checkpoint, and hostile files refused."""

import json
import os
from pathlib import Path

import pytest
from helpers import composed

from src.engine.evaluate import evaluate
from src.engine.export import export
from src.engine.exported import read_exported
from src.errors import UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory) -> Path:
    cfg = composed([], "export")
    cfg.ckpt, cfg.output = str(finished_run), str(tmp_path_factory.mktemp("exported"))
    return export(cfg)


def run_evaluate(folder: Path, *arguments: str) -> dict:
    evaluate(composed(["trainer.accelerator=cpu", *arguments], "evaluate"), folder)
    return json.loads((folder / "results.json").read_text())


def test_an_exported_file_has_the_metrics_of_its_checkpoint(
    exported, finished_run, tmp_path, monkeypatch
):
    monkeypatch.setattr("src.engine.evaluate.write_report", lambda *args, **options: None)
    results = run_evaluate(tmp_path, f"ckpt={exported}", "data=digits")
    trained = json.loads((finished_run / "results.json").read_text())["test"]
    assert results["test"]["acc"] == trained["acc"]
    assert results["test"]["loss"] == pytest.approx(trained["loss"], abs=1e-5)
    expected = (finished_run / "per_class.csv").read_text()
    assert (tmp_path / "per_class.csv").read_text() == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "does not name its data"),
        (["data=digits", "tta=flip"], "is evaluated alone"),
        (["data=digits", "trainer.precision=bf16-true"], "is evaluated alone"),
    ],
)
def test_settings_that_an_exported_file_does_not_take(exported, arguments, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run_evaluate(tmp_path, f"ckpt={exported}", *arguments)


def set_metadata(model, key: str, value: str) -> None:
    next(entry for entry in model.metadata_props if entry.key == key).value = value


def keep_outside(model) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def add_loop(model) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", [], [], body=body))


def add_large_value(model) -> None:
    shape = onnx.helper.make_tensor("many", onnx.TensorProto.INT64, [2], [10**5, 10**5])
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["many"], ["large"]))


def add_value_of_unknown_size(model) -> None:
    model.graph.node.append(onnx.helper.make_node("NonZero", ["images"], ["unknown"]))


HOSTILE = {
    "its value large is too large": add_large_value,
    "the size of its value unknown is not known": add_value_of_unknown_size,
    "its metadata lack classes": lambda model: model.ClearField("metadata_props"),
    "it holds a loop": add_loop,
    "its weights are in another file": keep_outside,
    "it does not return one logit per class": lambda m: set_metadata(m, "classes", '["a"]'),
    "it does not take the images": lambda model: set_metadata(model, "image_size", "64"),
    "image_size": lambda model: set_metadata(model, "image_size", "1000000"),
    "classes": lambda model: set_metadata(model, "classes", "[1]"),
    "it holds functions": lambda model: model.functions.add(),
    "it holds an operation of evil": lambda m: m.graph.node.add(op_type="A", domain="evil"),
}


@pytest.mark.parametrize("words", HOSTILE)
def test_files_that_are_no_exports(words, exported, tmp_path):
    model = onnx.load(exported)
    HOSTILE[words](model)
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="is no network exported by this project: ") as caught:
        read_exported(path)
    assert words in caught.value.problem
    assert "\n" not in caught.value.problem + caught.value.remedy


def test_what_is_no_onnx_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "noise.onnx").write_bytes(os.urandom(10_000))
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("pipe", "noise", "empty", "missing"):
        with pytest.raises(UserError, match="is no network exported by this project"):
            read_exported(tmp_path / f"{name}.onnx")
