"""evaluate.py: the metrics of the run again, other data by class name, ensembles, mirror images."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from helpers import QUICK, composed, run_training, write_image_folder
from image_files import make_image
from PIL import Image

import src
from src.config.cli import quote
from src.datamodules import DigitsDataModule, ImageFolderDataModule
from src.engine.evaluate import evaluate
from src.engine.rebuild import checkpoint_files
from src.errors import UserError
from src.runs.checkpoint_file import save

CLASSES = ["a=1,(b) c", "dog", "猫"]


def run_evaluate(folder: Path, *arguments: str) -> dict:
    """`python evaluate.py ...` in this process; returns the content of results.json."""
    typed = ["trainer.accelerator=cpu", *map(quote, arguments)]
    evaluate(composed(typed, "evaluate"), folder)
    return json.loads((folder / "results.json").read_text())


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def no_report(monkeypatch):
    """Leave out the report, whose plots take longer than the evaluation."""
    monkeypatch.setattr("src.engine.evaluate.write_report", lambda *args, **options: None)


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory) -> Path:
    """A run on a folder of three classes with awkward names."""
    root = tmp_path_factory.mktemp("three")
    write_image_folder(root, dict.fromkeys(CLASSES, 24), size=16)
    folder = tmp_path_factory.mktemp("run")
    run_training(
        folder,
        "data=image_folder",
        f"data.root={root}",
        "data.image_size=16",
        "data.val_size=0.5",
        "model=lenet",
        "trainer.max_epochs=1",
    )
    return folder


def test_evaluate_repeats_the_metrics_and_tables_of_the_run(finished_run, tmp_path, caplog):
    caplog.set_level("INFO")
    again = run_evaluate(tmp_path, f"ckpt={finished_run}/checkpoints/best.ckpt")
    trained = read_results(finished_run)["test"]
    assert again["test"] == trained and 0 < trained["ece"] < 1
    assert trained["acc_low"] < trained["acc"] < trained["acc_high"]
    for name in ("per_class", "confusion", "calibration", "misclassified", "predictions"):
        expected = (finished_run / f"{name}.csv").read_text()
        assert (tmp_path / f"{name}.csv").read_text() == expected, name
    assert list((tmp_path / "plots").glob("*.png"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Evaluation of LeNet on Digits" in page
    assert f"test accuracy {trained['acc']:.4f} (95 %: " in caplog.text
    assert caplog.messages[-1] == str(tmp_path)

    confusion = read_table(tmp_path / "confusion.csv")
    (first_column,) = {next(iter(row)) for row in confusion}
    assert [row[first_column] for row in confusion] == list("0123456789")
    correct = sum(int(row[row[first_column]]) for row in confusion)
    assert correct / 360 == pytest.approx(trained["acc"])
    wrong = read_table(tmp_path / "misclassified.csv")
    assert len(wrong) == 360 - correct
    pair = trained["most_confused"][0]
    named = [(row["label"], row["prediction"]) for row in wrong]
    assert named.count((pair["true"], pair["predicted"])) == pair["count"]


def test_tables_belong_to_the_right_images(finished_run):
    datamodule = DigitsDataModule()
    datamodule.setup("test")
    images = list(datamodule.images("test", torch.arange(360)))
    labels = datamodule.labels("test")
    probabilities = src.load(finished_run / "checkpoints/best.ckpt").predict(images)
    for row in read_table(finished_run / "misclassified.csv")[:20]:
        position = int(row["image"])
        assert int(row["prediction"]) == int(probabilities[position].argmax())
        assert int(row["label"]) == int(labels[position])
        expected = float(probabilities[position].max())
        assert float(row["confidence"]) == pytest.approx(expected, abs=1e-5)
    results = read_results(finished_run)["test"]
    among_two = (probabilities.topk(2).indices == labels[:, None]).any(1).double().mean()
    assert results["acc_top2"] == pytest.approx(float(among_two))


def test_other_data_are_matched_by_class_name(folder_run, tmp_path, no_report):
    """Fewer classes have other label numbers; the names count."""
    root = write_image_folder(tmp_path / "other", {"猫": 5, "dog": 4}, size=16, seed=9)
    checkpoint = folder_run / "checkpoints/best.ckpt"
    chosen = ("data=image_folder", f"data.root={root}", "split=val", "data.val_size=0.5")
    out = tmp_path / "out"
    results = run_evaluate(out, f"ckpt={checkpoint}", *chosen)
    support = {row["class"]: int(row["support"]) for row in read_table(out / "per_class.csv")}
    assert list(support) == CLASSES and support[CLASSES[0]] == 0
    assert support["dog"] + support["猫"] == 5
    assert results["val"]["per_class"][CLASSES[0]] is None
    classifier = src.load(checkpoint)
    files = [row["image"] for row in read_table(out / "misclassified.csv")]
    for file in files:
        predicted = classifier.predict(Image.open(root / file)).argmax()
        assert classifier.classes[int(predicted)] != Path(file).parent.name
    assert results["val"]["acc"] == 1 - len(files) / 5


def test_all_of_a_folder_is_evaluated_unless_the_network_was_trained_on_it(
    folder_run, tmp_path, no_report
):
    root = write_image_folder(tmp_path / "other", {"猫": 5, "dog": 4}, size=16, seed=9)
    ckpt = f"ckpt={folder_run}/checkpoints/best.ckpt"
    other = run_evaluate(tmp_path / "out", ckpt, "data=image_folder", f"data.root={root}")
    rows = read_table(tmp_path / "out" / "per_class.csv")
    assert sum(int(row["support"]) for row in rows) == 9 and "test" in other
    config = yaml.safe_load((folder_run / "config.yaml").read_text(encoding="utf-8"))
    own = (f"data.root={config['data']['root']}", "data.val_size=0.5")
    results = run_evaluate(tmp_path / "again", ckpt, "data=image_folder", *own)
    assert "test" not in results
    assert results["val"]["acc"] == read_results(folder_run)["val"]["acc"]


@pytest.mark.parametrize("layout", ["", "train", "test", "photos/TEST"])
def test_another_root_alone_is_evaluated_as_a_whole(
    layout, folder_run, tmp_path, no_report, caplog
):
    """Also where the training held out a test split."""
    caplog.set_level("INFO")
    content = torch.load(folder_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["description"]["config"]["data"]["test_size"] = 0.2
    save(content, tmp_path / "held_out.ckpt")
    write_image_folder(tmp_path / "new" / layout, {"猫": 5, "dog": 4}, size=16, seed=9)
    typed = [f"ckpt={tmp_path}/held_out.ckpt", f"data.root={tmp_path / 'new'}"]
    results = run_evaluate(tmp_path / "out", *typed)
    assert len(read_table(tmp_path / "out" / "predictions.csv")) == 9
    assert f"all 9 images of {tmp_path / 'new' / layout}:" in caplog.text
    assert results["test"]["acc_balanced"] is None  # one class has no images
    assert "Fewer than 30 test images of" in caplog.text


def test_a_folder_that_has_changed_since_the_training(folder_run, tmp_path, no_report, caplog):
    root = tmp_path / "again"
    shutil.copytree(root_of(folder_run), root)
    content = torch.load(folder_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["description"]["config"]["data"]["root"] = str(root)
    save(content, tmp_path / "moved.ckpt")
    typed = [f"ckpt={tmp_path}/moved.ckpt", f"data.root={root}"]
    assert "val" in run_evaluate(tmp_path / "same", *typed)
    assert "have changed" not in caplog.text
    next((root / "dog").iterdir()).unlink()
    assert "test" in run_evaluate(tmp_path / "changed", *typed)
    assert "have changed since the training" in caplog.text


def test_unknown_classes(folder_run, tmp_path):
    root = write_image_folder(tmp_path / "other", {"cow": 3, "dog": 3, "zebra": 3}, size=16)
    ckpt = f"ckpt={folder_run}/checkpoints/best.ckpt"
    out = tmp_path / "out"
    with pytest.raises(UserError, match="does not know 2 of the classes .*: cow, zebra") as caught:
        run_evaluate(out, ckpt, "data=image_folder", f"data.root={root}")
    assert ", ".join(CLASSES) in caught.value.remedy
    results = read_results(out)
    assert results["status"] == "failed" and "cow, zebra" in results["error"]


def root_of(run: Path) -> str:
    """The folder of the data of a run."""
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["description"][
        "config"
    ]["data"]["root"]


def test_a_checkpoint_does_not_choose_the_folder_of_the_data(folder_run, tmp_path):
    with pytest.raises(UserError, match="does not choose folders") as caught:
        run_evaluate(tmp_path / "out", f"ckpt={folder_run}/checkpoints/best.ckpt")
    assert f"data.root={root_of(folder_run)}" in caught.value.remedy


def test_another_split_is_reported(folder_run, tmp_path, caplog, no_report):
    typed = [f"ckpt={folder_run}/checkpoints/best.ckpt", f"data.root={root_of(folder_run)}"]
    run_evaluate(tmp_path / "same", *typed, "split=val")
    assert "differs from that of the training" not in caplog.text
    run_evaluate(tmp_path / "other", *typed, "split=val", "+data.split_seed=1")
    assert "differs from that of the training" in caplog.text


def test_an_ensemble_averages_probabilities_and_matches_classes(folder_run, tmp_path, no_report):
    best = folder_run / "checkpoints" / "best.ckpt"
    other = tmp_path / "b c [d]=(1).ckpt"
    content = torch.load(best, weights_only=True)
    description = content["description"]
    description["classes"] = [description["classes"][i] for i in (2, 0, 1)]
    generator = torch.Generator().manual_seed(1)
    for name, tensor in content["state_dict"].items():
        if name.startswith("model."):
            noise = torch.randn(tensor.shape, generator=generator)
            content["state_dict"][name] = tensor + 0.1 * noise
    save(content, other)

    root = description["config"]["data"]["root"]
    datamodule = ImageFolderDataModule(root, image_size=16, val_size=0.5)
    datamodule.setup("fit")
    labels = datamodule.labels("val")
    images = datamodule.images("val", torch.arange(len(labels)))
    first, second = src.load(best), src.load(other)
    order = [second.classes.index(name) for name in first.classes]
    with torch.inference_mode():
        straight, mirrored = (
            [first(view).softmax(1), second(view).softmax(1)[:, order]]
            for view in (images, images.flip(3))
        )
    for tta, chosen in ((None, straight), ("flip", straight + mirrored)):
        mean = torch.stack(chosen).mean(0)
        options = [f"tta={tta}"] if tta else []
        typed = (f"ckpt=[{best},{other}]", f"data.root={root}", *options, "split=val")
        results = run_evaluate(tmp_path / f"{tta}", *typed)
        accuracy = (mean.argmax(1) == labels).double().mean().item()
        assert results["val"]["acc"] == pytest.approx(accuracy)
        loss = torch.nn.functional.nll_loss(mean.log(), labels).item()
        assert results["val"]["loss"] == pytest.approx(loss, rel=1e-5)
        assert results["checkpoint"] == [str(best), str(other)]


def test_one_network_twice_is_that_network(finished_run, tmp_path, no_report):
    best = finished_run / "checkpoints/best.ckpt"
    again = run_evaluate(tmp_path, f"ckpt={best},{best}")["test"]
    trained = read_results(finished_run)["test"]
    assert again["per_class"] == trained["per_class"]
    assert again["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_the_files_that_ckpt_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.ckpt", "b.ckpt", "a.ckpt,b.ckpt", "x=1,(y) z.ckpt", "[a.ckpt]"):
        Path(name).write_bytes(b"")
    for typed, expected in [
        ("a.ckpt", ["a.ckpt"]),
        ("a.ckpt,b.ckpt", ["a.ckpt,b.ckpt"]),  # there is a file of that name
        ("b.ckpt,a.ckpt", ["b.ckpt", "a.ckpt"]),
        ("[b.ckpt, a.ckpt]", ["b.ckpt", "a.ckpt"]),
        ("[a.ckpt]", ["[a.ckpt]"]),
        ("[b.ckpt]", ["b.ckpt"]),
        ("x=1,(y) z.ckpt", ["x=1,(y) z.ckpt"]),
        ("c.ckpt", ["c.ckpt"]),
    ]:
        assert checkpoint_files(typed) == [Path(name) for name in expected]


def test_settings_errors(finished_run, folder_run, lenet_checkpoint, tmp_path, no_report):
    best = finished_run / "checkpoints/best.ckpt"
    other = folder_run / "checkpoints/best.ckpt"
    with pytest.raises(UserError, match="other values of .*classes"):
        run_evaluate(tmp_path / "1", f"ckpt={best},{other}")
    with pytest.raises(UserError, match="tta=rotate"):
        run_evaluate(tmp_path / "2", f"ckpt={best}", "tta=rotate")
    with pytest.raises(UserError, match="split=train"):
        run_evaluate(tmp_path / "3", f"ckpt={best}", "split=train")
    small = torch.load(lenet_checkpoint, weights_only=True)
    small["description"]["image_size"] = 28
    small["description"]["config"] = None
    save(small, tmp_path / "small.ckpt")
    with pytest.raises(UserError, match="does not name its data"):
        run_evaluate(tmp_path / "4", f"ckpt={tmp_path}/small.ckpt")
    with pytest.raises(UserError, match="other values of image_size"):
        run_evaluate(tmp_path / "5", f"ckpt={lenet_checkpoint},{tmp_path}/small.ckpt")


def write_wide_images(root: Path, first: int) -> Path:
    """Twelve images of two classes, none of them square."""
    for number, name in enumerate(["a", "b"] * 6):
        (root / name).mkdir(parents=True, exist_ok=True)
        image = make_image(first + number, 48).crop((0, 0, 48, 10 + 3 * number))
        image.save(root / name / f"{number}.png")
    return root


def test_padded_files_are_predicted_as_they_are_evaluated(tmp_path, no_report):
    root, other = (write_wide_images(tmp_path / name, len(name)) for name in ("own", "other"))
    typed = ["data=image_folder", f"data.root={root}", "data.image_size=16", "data.resize=pad"]
    typed += ["data.mean=[0.1,0.9,0.4]", "data.val_size=0.5", "model=lenet", *QUICK]
    run_training(tmp_path / "run", *typed)
    net = src.load(tmp_path / "run")
    assert net.resize == "pad"
    files = sorted(other.rglob("*.png"))
    rows = net.predict([str(file) for file in files]).log()
    own = [rows[i, net.classes.index(file.parent.name)] for i, file in enumerate(files)]
    given = [f"ckpt={tmp_path / 'run'}", "data=image_folder", f"data.root={other}"]
    results = run_evaluate(tmp_path / "out", *given)
    assert results["test"]["loss"] == pytest.approx(-float(sum(own)) / len(own), abs=1e-4)
