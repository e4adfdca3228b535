"""Figures with known answers, and evaluate.py: the run's own figures again, other data by class name, ensembles, mirror images."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import composed, run_script, run_training, write_folder
from torchmetrics.classification import MulticlassCalibrationError

import src
from src import measures
from src.command_line import quote
from src.errors import UserError
from src.evaluation import checkpoint_files, evaluate
from src.tasks.predictions import PredictionCollector


def collected(logits: torch.Tensor, labels: torch.Tensor, sizes: list[int] | None = None):
    collector = PredictionCollector(logits.shape[1])
    places = torch.arange(len(labels))
    for part in zip(*(x.split(sizes or len(labels)) for x in (places, labels, logits)), strict=True):
        collector.update(*part)
    return collector.predictions()


def evaluated(folder: Path, *arguments: str) -> dict:
    """`python evaluate.py ...` in this process; returns the content of results.json."""
    evaluate(composed(["trainer.accelerator=cpu", *(quote(a) for a in arguments)], "evaluate"), folder)
    return json.loads((folder / "results.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Known answers --------------------------------------------------------------------------------------------------------


def test_hand_made_predictions():
    """Five pictures of three classes, two of them wrong: everything can be worked out on paper."""
    probabilities = torch.tensor([[0.90, 0.07, 0.03], [0.90, 0.06, 0.04], [0.08, 0.62, 0.30], [0.10, 0.09, 0.81], [0.20, 0.25, 0.55]])
    labels = torch.tensor([0, 1, 1, 2, 0])
    for sizes in (None, [2, 3]):
        found = collected(probabilities.log(), labels, sizes)
        assert found.predicted.tolist() == [0, 0, 1, 2, 2] and found.labels.tolist() == labels.tolist()
        assert found.true_probability.tolist() == pytest.approx([0.90, 0.06, 0.62, 0.81, 0.20])
        bins = measures.calibration(found)
        assert {i: row["count"] for i, row in enumerate(bins) if row["count"]} == {8: 1, 9: 1, 12: 1, 13: 2}
        assert bins[13]["accuracy"] == 0.5 and bins[13]["confidence"] == pytest.approx(0.9)
        assert bins[0] == {"low": 0, "high": 1 / 15, "count": 0, "confidence": None, "accuracy": None}
        assert measures.expected_calibration_error(bins) == pytest.approx((2 * 0.4 + 0.38 + 0.19 + 0.55) / 5)
        assert measures.top_k(found, 3) == {"acc_top2": 0.8}  # picture 1 has its class second, picture 4 third
        wrong = measures.mistakes(found)
        assert wrong.positions.tolist() == [1, 4] and wrong.confidence.tolist() == pytest.approx([0.90, 0.55])


def test_calibration_error_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2000, 10, generator=generator)
    labels = torch.where(torch.rand(2000, generator=generator) < 0.6, logits.argmax(1), torch.randint(0, 10, (2000,), generator=generator))
    reference = MulticlassCalibrationError(10, n_bins=15, norm="l1")(logits.softmax(1), labels)
    ours = measures.expected_calibration_error(measures.calibration(collected(logits, labels, [64] * 31 + [16])))
    assert ours == pytest.approx(float(reference), abs=1e-6)


def test_a_confidence_of_exactly_one_belongs_to_the_last_bin():
    bins = measures.calibration(collected(torch.tensor([[200.0, 0, 0], [0, 200.0, 0]]), torch.tensor([0, 0])))
    assert bins[-1]["count"] == 2 and bins[-1]["accuracy"] == 0.5 and measures.expected_calibration_error(bins) == 0.5


@pytest.mark.parametrize(
    ("hits", "total", "expected"),
    [
        (8, 10, (0.490162, 0.943318)),  # (0.8 + 0.19207 -+ 1.96 sqrt(0.016 + 0.0096037)) / 1.384146
        (0, 10, (0.0, 0.277533)),  # z^2 / (n + z^2)
        (10, 10, (0.722467, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_interval(hits, total, expected):
    assert measures.wilson_interval(hits, total) == pytest.approx(expected, abs=1e-5)


def test_confused_pairs_and_the_most_confused_classes():
    confusion = torch.tensor([[8, 0, 2, 0], [0, 9, 1, 0], [4, 0, 6, 0], [0, 0, 0, 5]])
    pairs = measures.confused_pairs(list("abcd"), confusion)
    assert [(p["true"], p["predicted"], p["count"], p["share"]) for p in pairs] == [
        ("c", "a", 4, 0.4),
        ("a", "c", 2, 0.2),
        ("b", "c", 1, 0.1),
    ]
    assert measures.most_confused_classes(confusion, 2) == [0, 2]
    assert confusion.diagonal().tolist() == [8, 9, 6, 5]  # left as it was


def test_predictions_take_little_room_and_survive_ties_and_nothing():
    found = collected(torch.zeros(3, 1000), torch.tensor([0, 5, 999]))
    assert sum(column.numel() for column in found) == 3 * (3 + 5 + 2) and len(set(found.predicted.tolist())) == 1
    nothing = collected(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert len(nothing.labels) == 0 and measures.expected_calibration_error(measures.calibration(nothing)) == 0


# evaluate.py ----------------------------------------------------------------------------------------------------------


def test_evaluate_repeats_figures_and_tables_of_the_run(finished_run, tmp_path):
    again = evaluated(tmp_path, f"ckpt={finished_run}/checkpoints/best.ckpt")
    trained = json.loads((finished_run / "results.json").read_text())
    assert again["test"] == trained["test"] and 0 < trained["test"]["ece"] < 1
    assert trained["test"]["acc_low"] < trained["test"]["acc"] < trained["test"]["acc_high"]
    for name in ("per_class", "confusion", "calibration", "mistakes"):
        assert (tmp_path / f"{name}.csv").read_text() == (finished_run / f"{name}.csv").read_text()
    for name in ("per_class", "confusion", "calibration"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")

    confusion = table(tmp_path / "confusion.csv")
    assert [row["true / predicted"] for row in confusion] == list("0123456789")
    assert sum(int(row[row["true / predicted"]]) for row in confusion) / 360 == pytest.approx(trained["test"]["acc"])
    wrong = table(tmp_path / "mistakes.csv")
    assert len(wrong) == round(360 * (1 - trained["test"]["acc"]))
    first = trained["test"]["most_confused"][0]
    assert sum((row["true"], row["predicted"]) == (first["true"], first["predicted"]) for row in wrong) == first["count"]
    assert sum(int(row["count"]) for row in table(tmp_path / "calibration.csv")) == 360
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Evaluation of LeNet on Digits" in page and "Training pictures" not in page


def test_top_k_and_mistakes_belong_to_the_right_pictures(finished_run):
    from src.datamodules import DigitsDataModule

    data = DigitsDataModule()
    data.setup("test")
    probabilities = src.load(finished_run / "checkpoints/best.ckpt").predict(list(data.images("test", torch.arange(360))))
    for row in table(finished_run / "mistakes.csv")[:20]:
        answer = probabilities[int(row["picture"])]
        assert str(int(answer.argmax())) == row["predicted"] and str(int(data.labels("test")[int(row["picture"])])) == row["true"]
        assert float(row["confidence"]) == pytest.approx(float(answer.max()), abs=1e-5)
    results = json.loads((finished_run / "results.json").read_text())["test"]
    second = (probabilities.topk(2).indices == data.labels("test")[:, None]).any(1).double().mean()
    assert results["acc_top2"] == pytest.approx(float(second)) and results["acc_top5"] > results["acc_top2"]


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory) -> Path:
    """A run on a folder of three classes with awkward names."""
    root = write_folder(tmp_path_factory.mktemp("three"), {"a=1,(b) c": 24, "dog": 24, "猫": 24}, size=16)
    folder = tmp_path_factory.mktemp("run")
    run_training(
        folder, "data=image_folder", f"data.root={root}", "data.image_size=16", "data.val_size=0.5", "model=lenet", "trainer.max_epochs=1",
    )  # fmt: skip
    return folder


def test_other_data_are_matched_by_class_name(folder_run, tmp_path):
    """Fewer classes, so other numbers: what counts is the name."""
    root = write_folder(tmp_path / "other", {"猫": 5, "dog": 4}, size=16, seed=9)
    chosen = ("data=image_folder", f"data.root={root}", "split=val", "data.val_size=0.5")
    results = evaluated(tmp_path / "out", f"ckpt={folder_run}/checkpoints/best.ckpt", *chosen)
    rows = {row["class"]: int(row["support"]) for row in table(tmp_path / "out" / "per_class.csv")}
    assert list(rows) == ["a=1,(b) c", "dog", "猫"] and rows["a=1,(b) c"] == 0 and rows["dog"] + rows["猫"] == 5
    net = src.load(folder_run / "checkpoints/best.ckpt")
    from PIL import Image

    files = [row["picture"] for row in table(tmp_path / "out" / "mistakes.csv")]
    for file in files:
        true = Path(file).parent.name
        said = net.classes[int(net.predict(Image.open(root / file)).argmax())]
        assert said != true
    assert results["val"]["acc"] == 1 - len(files) / 5


def test_all_of_a_folder_without_splits_is_measured_unless_the_network_was_trained_on_it(folder_run, tmp_path):
    root = write_folder(tmp_path / "other", {"猫": 5, "dog": 4}, size=16, seed=9)
    checkpoint = f"ckpt={folder_run}/checkpoints/best.ckpt"
    other = evaluated(tmp_path / "out", checkpoint, "data=image_folder", f"data.root={root}")
    assert sum(int(row["support"]) for row in table(tmp_path / "out" / "per_class.csv")) == 9 and "test" in other
    own = yaml.safe_load((folder_run / "config.yaml").read_text(encoding="utf-8"))["data"]["root"]
    results = evaluated(tmp_path / "again", checkpoint, "data=image_folder", f"data.root={own}", "data.val_size=0.5")
    assert "test" not in results and results["val"]["acc"] == json.loads((folder_run / "results.json").read_text())["val"]["acc"]


def test_classes_that_the_network_does_not_know(folder_run, tmp_path):
    root = write_folder(tmp_path / "other", {"cow": 3, "dog": 3, "zebra": 3}, size=16)
    with pytest.raises(UserError, match="does not know 2 of the classes of these data: cow, zebra") as caught:
        evaluated(tmp_path / "out", f"ckpt={folder_run}/checkpoints/best.ckpt", "data=image_folder", f"data.root={root}")
    assert "a=1,(b) c, dog, 猫" in caught.value.remedy
    assert "cow, zebra" in (tmp_path / "out" / "report.html").read_text()


def test_an_ensemble_averages_probabilities_and_classes_by_name(folder_run, tmp_path):
    best = folder_run / "checkpoints" / "best.ckpt"
    other = tmp_path / "b,c [d]=(1).ckpt"
    content = torch.load(best, weights_only=True)
    generator = torch.Generator().manual_seed(1)
    turn = [2, 0, 1]  # another network, which knows the classes in another order
    content["description"]["classes"] = [content["description"]["classes"][i] for i in turn]
    for name, tensor in content["state_dict"].items():
        if name.startswith("model."):
            content["state_dict"][name] = tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
    torch.save(content, other)

    from src.datamodules import ImageFolderDataModule

    root = content["description"]["config"]["data"]["root"]
    data = ImageFolderDataModule(root, image_size=16, val_size=0.5)
    data.setup("fit")
    labels = data.labels("val")
    images = data.images("val", torch.arange(len(labels)))
    first, second = src.load(best), src.load(other)
    order = [second.classes.index(name) for name in first.classes]
    with torch.inference_mode():
        views = [images, images.flip(3)]
        answers = [net(x).softmax(1)[:, columns] for x in views for net, columns in ((first, [0, 1, 2]), (second, order))]

    for tta, chosen in ((None, answers[:2]), ("flip", answers)):
        mean = torch.stack(chosen).mean(0)
        results = evaluated(tmp_path / f"{tta}", f"ckpt=[{best},{other}]", *([f"tta={tta}"] if tta else []), "split=val")
        assert results["val"]["acc"] == pytest.approx((mean.argmax(1) == labels).double().mean().item())
        assert results["val"]["loss"] == pytest.approx(torch.nn.functional.nll_loss(mean.log(), labels).item(), rel=1e-5)
        assert results["checkpoint"] == [str(best), str(other)]


def test_one_network_twice_is_that_network(finished_run, tmp_path):
    best = finished_run / "checkpoints/best.ckpt"
    again = evaluated(tmp_path, f"ckpt={best},{best}")["test"]
    trained = json.loads((finished_run / "results.json").read_text())["test"]
    assert again["per_class"] == trained["per_class"] and again["loss"] == pytest.approx(trained["loss"], rel=1e-5)


def test_which_files_a_ckpt_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.ckpt", "b.ckpt", "a.ckpt,b.ckpt", "x=1,(y) z.ckpt", "[a.ckpt]"):
        Path(name).write_bytes(b"")
    for typed, expected in [
        ("a.ckpt", ["a.ckpt"]),
        ("a.ckpt,b.ckpt", ["a.ckpt,b.ckpt"]),  # a file of that name is there
        ("b.ckpt,a.ckpt", ["b.ckpt", "a.ckpt"]),
        ("[b.ckpt, a.ckpt]", ["b.ckpt", "a.ckpt"]),
        ("[a.ckpt]", ["[a.ckpt]"]),
        ("[b.ckpt]", ["b.ckpt"]),
        ("b.ckpt,x=1,(y) z.ckpt,a.ckpt", ["b.ckpt", "x=1,(y) z.ckpt", "a.ckpt"]),
    ]:
        assert checkpoint_files(typed) == [Path(name) for name in expected]
    assert checkpoint_files(",".join(["b.ckpt"] * 1000)) == [Path("b.ckpt")] * 1000  # longer than any path may be
    with pytest.raises(UserError, match=r"no checkpoint c\.ckpt"):
        checkpoint_files("a.ckpt,c.ckpt,b.ckpt")
    with pytest.raises(UserError, match=r"no checkpoint c,d=\.ckpt"):
        checkpoint_files("c,d=.ckpt")


def test_networks_that_do_not_go_together(finished_run, folder_run, tmp_path):
    with pytest.raises(UserError, match="does not know the same classes"):
        evaluated(tmp_path, f"ckpt={finished_run}/checkpoints/best.ckpt,{folder_run}/checkpoints/best.ckpt")
    with pytest.raises(UserError, match="tta="):
        evaluated(tmp_path, f"ckpt={finished_run}/checkpoints/best.ckpt", "tta=rotate")


@pytest.mark.slow
def test_two_processes_count_each_picture_once(tmp_path):
    """An odd number of pictures on two processes gives the figures and tables that one process gives."""
    result = run_script(
        "train.py", "model=lenet", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp",
        "data.val_size=143", "test=false", "logger=none", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    again = evaluated(tmp_path / "again", f"ckpt={tmp_path}/run/checkpoints/best.ckpt", "split=val")["val"]
    trained = json.loads((tmp_path / "run" / "results.json").read_text())["val"]
    assert {key: again[key] for key in trained} == pytest.approx(trained, rel=1e-5)
    assert (tmp_path / "again/confusion.csv").read_text() == (tmp_path / "run/confusion.csv").read_text()
    wrong = [[row["picture"] for row in table(folder / "mistakes.csv")] for folder in (tmp_path / "run", tmp_path / "again")]
    assert sorted(wrong[0]) == sorted(wrong[1]) and sum(int(r["count"]) for r in table(tmp_path / "run/calibration.csv")) == 143
    assert (tmp_path / "run/report.html").is_file()
