"""Reading weights from files and checking them against a network."""

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models.weights import check_weights, load_weights, read_weights


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.pth", None, "No such file"),
        ("list.pth", [1, 2], "no state dict"),
        ("text.pth", b"not a file of weights", "cannot be loaded"),
        ("empty.pth", b"", "cannot be loaded"),
    ],
)
def test_files_without_weights(tmp_path, name, content, words):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=words) as caught:
        read_weights(path)
    assert caught.value.remedy


def test_weights_are_read_and_loaded(tmp_path):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_weights(target, read_weights(tmp_path / "weights.pth"))
    assert torch.equal(source.weight, target.weight)


def test_differences_are_named():
    network = nn.Linear(2, 3)
    check_weights(network, network.state_dict())
    weights = {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}
    with pytest.raises(UserError) as caught:
        check_weights(network, weights)
    assert caught.value.problem == (
        "The weights belong to another architecture than Linear: bias is missing; scale is not in "
        "the network; weight is (3, 4) instead of (3, 2)."
    )


def test_a_network_on_the_meta_device_can_be_checked():
    with torch.device("meta"):
        network = nn.Linear(2, 3)
    check_weights(network, nn.Linear(2, 3).state_dict())
