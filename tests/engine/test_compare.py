"""Comparisons of run folders, which are written by hand here."""

import csv
import json

import pytest
import yaml
from omegaconf import OmegaConf

from src.engine.compare import compare
from src.errors import UserError

IMAGES = 60


@pytest.fixture
def write_run(tmp_path):
    """Writes a run whose predictions are wrong for the images of some numbers."""

    def write(name: str, wrong=(), images=IMAGES, status="completed", **settings) -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {"seed": 0, "model": {"_target_": "src.models.LeNet"}, **settings}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        results = {"status": status, "test": {"acc": 1 - len(wrong) / images, "auroc": 0.9}}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "metrics.csv").write_text("epoch,val/loss,val/acc\n0,0.5,0.8\n1,0.4,0.9\n")
        with open(folder / "predictions.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "prediction", "probability", "label_probability"])
            for i in range(images):
                label = "cat" if i % 2 else "dog <b>"
                other = "dog <b>" if i % 2 else "cat"
                row = [i, label, other, 0.7, 0.3] if i in wrong else [i, label, label, 0.9, 0.9]
                writer.writerow(row)
        return str(folder)

    return write


def run(tmp_path, *runs: str) -> dict:
    return compare(OmegaConf.create({"runs": list(runs)}), tmp_path / "comparison")


def test_two_networks_are_compared_on_their_images(write_run, tmp_path, caplog):
    caplog.set_level("INFO")
    first = write_run("a", wrong=range(12))
    second = write_run("b", wrong=[0, 50], model={"_target_": "src.models.SimpleV3", "width": 3})
    comparison = run(tmp_path, first, second)
    [pair] = comparison["pairs"]
    assert pair["mcnemar"] == [
        {"only_first": 1, "only_second": 11, "p": pytest.approx(0.00635, abs=1e-5)}
    ]
    assert pair["images"]["acc"]["difference"] == pytest.approx(10 / 60)
    assert pair["conclusion"].startswith("B has a higher accuracy than A: +16.67 points (95 %:")
    assert "other seeds may differ" in pair["conclusion"] and pair["conclusion"] in caplog.text
    assert comparison["groups"][1]["settings"] == {"model._target_": "src.models.SimpleV3"}
    folder = tmp_path / "comparison"
    assert json.loads((folder / "comparison.json").read_text()) == comparison
    changed = list(csv.DictReader(open(folder / "changed.csv")))
    assert [row["image"] for row in changed] == [*map(str, range(1, 12)), "50"]
    page = (folder / "comparison.html").read_text()
    assert "SimpleV3" in page and "dog &lt;b&gt;" in page and "<b>" not in page


def test_a_sweep_is_grouped_over_seeds(write_run, tmp_path):
    for seed in range(3):
        for rate, errors in ((0.1, 6), (0.01, 3 + seed % 2)):
            name = f"sweep/{rate}_{seed}"
            callbacks = {"step_seed": {"seed": seed}}
            write_run(name, range(seed, seed + errors), seed=seed, lr=rate, callbacks=callbacks)
    write_run("sweep/cut_off", status="interrupted")
    comparison = run(tmp_path, str(tmp_path / "sweep"))
    assert [group["n"] for group in comparison["groups"]] == [3, 3]
    [pair] = comparison["pairs"]
    assert pair["seeds"]["acc"]["test"] == "paired t-test" and len(pair["mcnemar"]) == 3
    assert pair["p"] == pytest.approx(pair["seeds"]["acc"]["p"]) and "auroc" in pair["seeds"]
    [lower, higher] = sorted(
        comparison["groups"], key=lambda group: group["metrics"]["acc"]["mean"]
    )
    assert lower["settings"] == {"lr": 0.1} and higher["settings"] == {"lr": 0.01}


def test_equal_networks_show_no_difference(write_run, tmp_path):
    for seed in range(3):
        write_run(f"a{seed}", wrong=range(seed), seed=seed, lr=1)
        write_run(f"b{seed}", wrong=range(10, 10 + seed % 2), seed=seed, lr=2)
    comparison = run(tmp_path, *(str(tmp_path / f"{n}{seed}") for n in "ab" for seed in range(3)))
    conclusion = comparison["pairs"][0]["conclusion"]
    assert (
        conclusion.startswith("No difference of B from A shown with n = 3") and "few" in conclusion
    )


def test_many_settings_are_corrected(write_run, tmp_path):
    runs = [write_run(str(i), wrong=range(7 * (i == 2)), lr=i) for i in range(3)]
    pairs = run(tmp_path, *runs)["pairs"]
    assert [pair["p"] for pair in pairs] == pytest.approx([1, 0.015625, 0.015625])
    assert [pair["p_corrected"] for pair in pairs] == pytest.approx([1, 0.046875, 0.046875])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 58}, "other images"),
        ({"lr": 0}, "same settings"),
        ({"status": "failed"}, "no completed run"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, words, write_run, tmp_path):
    runs = [write_run("a", lr=0), write_run("b", **({"lr": 1, "seed": 1} | change))]
    with pytest.raises(UserError, match=words):
        run(tmp_path, *runs)
    assert not (tmp_path / "comparison").exists()


def test_predictions_of_an_older_version_are_named(write_run, tmp_path):
    runs = [write_run("a"), write_run("b", lr=1)]
    (tmp_path / "a" / "predictions.csv").write_text("image,label,prediction,probability\n0,a,a,1\n")
    with pytest.raises(UserError, match="label_probability"):
        run(tmp_path, *runs)
