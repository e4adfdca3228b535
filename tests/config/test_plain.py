"""Configs as plain values for records."""

from pathlib import Path

from helpers import composed
from omegaconf import OmegaConf

from src.config.instantiate import instantiate_datamodule
from src.config.plain import plain_config
from src.config.prepare import prepare_config


def test_the_record_of_a_config_holds_no_secrets(monkeypatch):
    monkeypatch.setenv("SERVICE_API_KEY", "s3cr3t-value")
    overrides = ["data.root=/x/${oc.env:SERVICE_API_KEY}", "+logger.csv.api_key=abc", "+a=${seed}"]
    cfg = composed([*overrides, "+b=${data.root}"])
    prepare_config(cfg)
    config = plain_config(cfg)
    assert config["data"]["root"] == config["b"] == "/x/${oc.env:SERVICE_API_KEY}"
    assert config["a"] == 0 and "abc" not in str(config) and "s3cr3t" not in str(config)
    assert instantiate_datamodule(composed(overrides[:1])).root == Path("/x/s3cr3t-value")
    assert plain_config(OmegaConf.create({"a": {"b": [1, None]}})) == {"a": {"b": [1, None]}}
