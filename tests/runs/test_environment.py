"""What a run ran on, and which settings are secrets."""

import json
import sys

import pytest

from src.runs.environment import (
    command_line,
    git_state,
    hardware,
    is_secret,
    redact_argument,
    redact_secrets,
    versions,
)


def test_the_environment_is_plain_and_names_no_host():
    facts = {"versions": versions(), "hardware": hardware(), "git": git_state()}
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] and facts["hardware"]["cores"] >= 1


SECRETS = "apiKey authToken db-password privateKey secrets PWD_FILE pwd api_key API_KEY"
SECRETS += " token HF_TOKEN password DB_PASSWORD GH_PAT AUTH PASSPHRASE"
NO_SECRETS = "MY_KEYRING_DIR KEYBOARD monitor key patience author path tokens"


@pytest.mark.parametrize("name", [*SECRETS.split(), "client_secret", "credentials"])
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", NO_SECRETS.split())
def test_names_that_are_no_secrets(name):
    assert not is_secret(name)


def test_values_are_hidden_by_the_name_of_their_key_alone(monkeypatch):
    monkeypatch.setenv("MY_KEYRING_DIR", "/data/images")
    settings = {
        "data": {"root": "/data/images"},
        "logger": [{"api_key": "abc", "token": "${oc.env:TOKEN}", "password": None}],
    }
    redacted = redact_secrets(settings)
    assert redacted["data"] == {"root": "/data/images"}
    assert redacted["logger"] == [{"api_key": "***", "token": "${oc.env:TOKEN}", "password": None}]


def test_the_command_hides_secrets(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/train.py", "logger.wandb.api_key=abc", "seed=1"])
    assert command_line() == ["train.py", "logger.wandb.api_key=***", "seed=1"]
    assert redact_argument("model.token=${oc.env:T}") == "model.token=${oc.env:T}"
    assert redact_argument("+auth.user=a") == "+auth.user=***"
    typed = "+logger.x={apiKey: abc, 'b': 1, inner: {password: 'a,b', name: c}}"
    hidden = "+logger.x={apiKey: ***, 'b': 1, inner: {password: ***, name: c}}"
    assert redact_argument(typed) == hidden


def test_all_values_below_the_name_of_a_secret_are_hidden():
    settings = {"credentials": {"_target_": "src.X", "user": "bob", "keys": ["a", "${oc.env:B}"]}}
    hidden = {"_target_": "src.X", "user": "***", "keys": ["***", "${oc.env:B}"]}
    assert redact_secrets(settings) == {"credentials": hidden}
    numbers = {"password": 1234, "num_token": 16, "auth": True, "class_token": False}
    assert redact_secrets(numbers) == numbers | {"password": "***"}
