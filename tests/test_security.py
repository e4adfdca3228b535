"""Checkpoints, configs, pictures and archives from strangers; secrets of the environment."""

import json

import pytest
import yaml
from conftest import composed, run_training

from src.datamodules.download import extract
from src.datamodules.fashion_mnist import read_idx
from src.decode import decode
from src.errors import UserError
from src.run_folder import without_secrets
from src.stored_config import continued_config, stored_config


def test_hostile_checkpoints_are_refused_and_nothing_runs(script, finished_run, tmp_path, monkeypatch):
    import src

    monkeypatch.setenv("HOSTILE_SECRET", "a-secret-of-the-environment")
    folder, marker = tmp_path / "hostile", tmp_path / "ran"
    folder.mkdir()
    script.hostile_checkpoints(finished_run / "checkpoints" / "best.ckpt", folder, marker)
    paths = sorted(folder.glob("*.ckpt"))
    assert len(paths) == 26
    for path in paths:
        with pytest.raises(UserError) as caught:
            script.evaluated(path, tmp_path / "out")
        assert "a-secret-of" not in str(caught.value) and caught.value.remedy
        if path.stem not in ("foreign_data", "interpolation"):  # these concern the data, which loading leaves alone
            with pytest.raises(UserError):
                src.load(path)
    assert not marker.exists() and folder.exists()


def test_hostile_pictures_and_archives_are_refused(script, tmp_path):
    pictures, archives = tmp_path / "pictures", tmp_path / "archives"
    pictures.mkdir()
    archives.mkdir()
    script.broken_pictures(pictures)
    script.hostile_archives(archives)
    for path in pictures.iterdir():
        with pytest.raises(ValueError):
            decode(path, 32)
    for path in sorted(archives.glob("*.tar")):
        with pytest.raises(UserError, match=path.name):
            extract(path, archives / "dog_cat")
    assert not (archives / "dog_cat").exists() and not list(tmp_path.rglob("ran"))


def test_a_packed_file_gives_no_more_than_it_announces(tmp_path):
    import gzip

    path = tmp_path / "x-idx3-ubyte.gz"
    for shape, body in (((1, 2, 2), 10_000), ((1 << 30, 1 << 30, 4), 4)):
        with gzip.open(path, "wb") as file:
            file.write(bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in shape) + b"\0" * body)
        with pytest.raises(UserError, match="announces"):
            read_idx(path, 3)


# A run folder from a stranger


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"callbacks": {"x": {"_target_": "os.system", "command": "touch ran"}}}, "os.system"),
        ({"optimizer": {"_target_": "src.run_folder.write_text"}}, "write_text"),
        ({"model": {"_target_": "torch.hub.load"}}, "torch.hub.load"),
        ({"data": {"root": "${oc.env:HOME}"}}, "interpolation"),
    ],
)
def test_a_stored_config_builds_and_interpolates_nothing_foreign(change, words, finished_run, tmp_path):
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    for group, values in change.items():
        config[group] |= values
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=words):
        stored_config(tmp_path / "config.yaml")


def test_what_is_typed_stands_in_for_what_is_not_trusted(finished_run, tmp_path):
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    config["data"]["root"] = "${oc.env:A_TOKEN}/x"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "checkpoints").mkdir()
    typed = ["data.root=/data", f"resume='{tmp_path}/checkpoints/last.ckpt'"]
    assert continued_config(composed(typed), typed).data.root == "/data"


# Secrets


def test_secrets_of_the_environment_stay_out_of_the_run_folder(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("SERVICE_API_KEY", "s3cr3t-value")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:pa55word@host/db")
    monkeypatch.setattr("sys.argv", ["train.py", "data.root=/x/s3cr3t-value"])
    quick = ["model=lenet", "data.image_size=16", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    run_training(tmp_path, *quick, "data.root=/x/${oc.env:SERVICE_API_KEY}")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"s3cr3t-value" not in path.read_bytes(), path
    assert json.loads((tmp_path / "run.json").read_text())["command"] == ["train.py", "data.root=/x/${oc.env:SERVICE_API_KEY}"]
    stored = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert stored["description"]["config"]["data"]["root"] == "/x/${oc.env:SERVICE_API_KEY}"
    assert without_secrets({"a": ["postgres://user:pa55word@host/db", 3]}) == {"a": ["${oc.env:DATABASE_URL}", 3]}
