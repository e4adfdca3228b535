"""evaluate.py calibrate=true: temperature, thresholds and known images in the checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import composed, random_images
from image_files import write_readable
from predict_helpers import read_rows, run_predict
from torch import nn

import src
from src.engine.calibrate import fit_temperature
from src.engine.evaluate import evaluate
from src.engine.export import export
from src.errors import UserError
from src.inference.calibration import KnownImages, read_calibration
from src.runs import checkpoint
from src.runs.checkpoint_file import save


@pytest.fixture(scope="module")
def no_report():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.engine.evaluate.write_report", lambda *args, **options: None)
        yield


@pytest.fixture(scope="module")
def calibrated(finished_run, tmp_path_factory, no_report) -> tuple[Path, dict]:
    """A calibrated copy of a checkpoint for the digits, and results.json of the command."""
    folder = tmp_path_factory.mktemp("calibrated")
    path = folder / "best.ckpt"
    shutil.copyfile(finished_run / "checkpoints/best.ckpt", path)
    evaluate(composed([f"ckpt={path}", "calibrate=true", *CPU], "evaluate"), folder / "out")
    return path, json.loads((folder / "out/results.json").read_text())


CPU = ["trainer.accelerator=cpu"]


def with_calibration(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a checkpoint with other values in its calibration."""
    content = checkpoint.read(source)
    content["calibration"] = content["calibration"] | changes
    save(content, target)
    return target


def test_a_temperature_is_kept_only_where_it_helps_other_images():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 5, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    right, of_right = fit_temperature(logits, labels)
    assert right == 1 and of_right["fitted_temperature"] == pytest.approx(1, abs=0.1)
    overconfident, measured = fit_temperature(3 * logits, labels)
    assert overconfident == pytest.approx(3, rel=0.1)
    assert measured["cross_validated_loss"] < measured["loss"]
    perfect = 4 * nn.functional.one_hot(labels, 5).double()
    assert fit_temperature(perfect, labels)[0] == 1  # the lowest loss would be at 0


def test_the_checkpoint_keeps_its_content_and_gains_a_calibration(calibrated, finished_run):
    path, results = calibrated
    before = checkpoint.read(finished_run / "checkpoints/best.ckpt")
    after = checkpoint.read(path)
    assert set(after) - set(before) == {"calibration"}
    assert all(torch.equal(after["state_dict"][k], v) for k, v in before["state_dict"].items())
    measured, net = results["calibration"], src.load(path)
    assert net.calibration.temperature == measured["temperature"]
    rows = {row["coverage"]: row for row in measured["coverage"]}
    assert rows[1.0]["answered"] == measured["images"] > rows[0.8]["answered"]
    for coverage, row in rows.items():
        assert row["answered"] / measured["images"] == pytest.approx(coverage, abs=0.01)


def test_noise_is_more_often_unknown_than_known_images(calibrated):
    from src.datamodules import DigitsDataModule

    net = src.load(calibrated[0])
    data = DigitsDataModule(image_size=net.image_size)
    data.setup("test")
    known = net.is_unknown(list(data.images("test", torch.arange(300))))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (200, 1, 32, 32), dtype=torch.uint8, generator=generator)
    assert known.dtype == torch.bool and known.double().mean() < 0.2
    assert net.is_unknown(noise).double().mean() > known.double().mean() + 0.1
    assert net.is_unknown([]).shape == (0,)


def test_the_temperature_is_part_of_every_probability(calibrated, tmp_path, no_report):
    hot = with_calibration(calibrated[0], tmp_path / "hot.ckpt", temperature=5.0)
    cold = with_calibration(calibrated[0], tmp_path / "cold.ckpt", temperature=1.0)
    images = torch.from_numpy(random_images(4, 1, 8))
    plain, scaled = src.load(cold), src.load(hot)
    expected = (plain.predict(images).log() / 5).softmax(1)
    assert torch.allclose(scaled.predict(images), expected, atol=1e-5)
    losses = []
    for name in (f"ckpt={hot}", f"ckpt={cold}", f"ckpt=[{hot},{hot}]"):
        cfg = composed([name, *CPU], "evaluate")
        losses.append(evaluate(cfg, tmp_path / f"out{len(losses)}")["loss"])
    assert losses[0] == pytest.approx(losses[2], abs=1e-5) and losses[0] != losses[1]
    target = export(composed([f"ckpt={hot}", "format=pt2"], "export"))
    pixels = torch.stack([scaled._prepare(image) for image in src.inference.images.to_list(images)])
    assert torch.allclose(
        torch.export.load(target).module()(pixels).softmax(1), expected, atol=1e-4
    )
    assert json.loads((tmp_path / "preprocess.json").read_text())["temperature"] == 5


@pytest.mark.parametrize("workers", [0, None])
def test_answers_of_predict(workers, calibrated, tmp_path):
    write_readable(tmp_path / "in", 25)
    path = with_calibration(calibrated[0], tmp_path / "a.ckpt", confidences=[0.0, 0.5, 1.0])
    settings = {"num_workers": "null" if workers is None else workers, "batch_size": 3}
    run_predict(path, tmp_path / "in", tmp_path / "plain", unknown="false", **settings)
    plain = read_rows(tmp_path / "plain/predictions.csv")
    results = run_predict(path, tmp_path / "in", tmp_path / "out", coverage=0.5, **settings)
    rows = read_rows(tmp_path / "out/predictions.csv")
    assert results["threshold"] == 0.5 and "answer" not in plain[0]
    lines = (tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    unknown = src.load(path).is_unknown([row["file"] for row in rows])
    for row, old, line, is_unknown in zip(rows, plain, lines, unknown, strict=True):
        answer, distance = row.pop("answer"), float(row.pop("distance"))
        assert row == old and json.loads(line)["answer"] == answer
        sure = row["class_1"] if float(row["probability_1"]) >= 0.5 else "unsure"
        assert answer == ("unknown" if is_unknown else sure)
        assert (distance > 1) == bool(is_unknown)


def test_hostile_calibrations_are_refused(calibrated, tmp_path):
    good = checkpoint.read(calibrated[0])["calibration"]["known"]
    nan = torch.full_like(good["features"], torch.nan)
    for changes in (
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": "1"},
        {"confidences": [0.5]},
        {"confidences": [0.1, float("nan")]},
        {"confidences": [0.5] * 5000},
        {"known": {"features": torch.ones(5, 3), "threshold": 1.0}},
        {"known": {"features": torch.ones(5), "threshold": 1.0}},
        {"known": {"features": torch.ones(0, 84), "threshold": 1.0}},
        {"known": {"features": nan, "threshold": 1.0}},
        {"known": good | {"threshold": 0.0}},
        {"known": [1]},
    ):
        path = with_calibration(calibrated[0], tmp_path / "a.ckpt", **changes)
        with pytest.raises(UserError, match="calibration"):
            src.load(path)


def test_what_cannot_be_calibrated_is_refused(finished_run, lenet_checkpoint, tmp_path, no_report):
    ckpt = finished_run / "checkpoints/best.ckpt"
    for typed, words in (
        ([f"ckpt=[{ckpt},{ckpt}]"], "one checkpoint"),
        ([f"ckpt={ckpt}", "tta=flip"], "one checkpoint"),
        ([f"ckpt={lenet_checkpoint}"], "data of the training"),
    ):
        cfg = composed([*typed, "calibrate=true", *CPU], "evaluate")
        with pytest.raises(UserError, match=words):
            evaluate(cfg, tmp_path)


def test_a_network_without_a_linear_head_has_a_temperature_only(tmp_path):
    known = KnownImages(torch.rand(20, 3), 0.5)
    assert known(torch.rand(4, 3)).shape == (4,)
    stored = {"temperature": 2.0, "confidences": [0.1, 0.9], "known": None}
    calibration = read_calibration({"calibration": stored})
    assert calibration.known is None and calibration.threshold(0.75) == pytest.approx(0.3)
    with pytest.raises(UserError, match="does not know the images"):
        src.inference.Classifier(
            nn.Flatten(),
            {"classes": ["a"], "channels": 1, "mean": [0.0], "std": [1.0]},
            calibration,
        ).is_unknown([])
